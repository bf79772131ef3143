"""How commits relate that cannot be looked at: never taken for a step forward."""

import shutil
from datetime import UTC, datetime

import pytest

from reconciler.control.records import Record
from reconciler.control.state import fold
from reconciler.errors import TrueupError, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.release.facts import Common, UnitFacts
from reconciler.release.look import look_up_lineage
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.status.documents import Release, UnitStatus
from reconciler.views import View
from tests.gitrepo import GitRepo

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = b"""\
version: 1
repositories: {app: {url: "https://git.example/app.git"}}
environments: {production: {release: {from: main, cut: external}}}
"""


async def test_commits_that_cannot_be_compared_are_an_error(remote: GitRepo, mirror: Mirror) -> None:
    old, new = remote.commit({"a": "1"}), remote.commit({"a": "2"})
    remote.tag("v1.0.0", new)
    view = View(mirror, await mirror.refresh(), await mirror.tags())
    spec = load_or_raise({SPEC_FILE: SPEC})
    facts = UnitFacts(
        unit=spec.units["app"],
        environment=spec.environments["production"],
        tags=view.tags,
        recorded=UnitStatus(release=Release(tag="v1.0.0", commit=new, recorded_at=NOW)),
    )

    def asked(commit: str) -> Common:
        return Common(
            now=NOW,
            spec_commit="5" * 40,
            control=fold(
                [
                    Record(
                        number=1,
                        kind="hotfix",
                        by="A <a@x>",
                        at=NOW,
                        environment="production",
                        unit="app",
                        commit=commit,
                    )
                ]
            ),
        )

    assert (await look_up_lineage(facts, asked(old), view)).is_older(old, new)
    assert not (await look_up_lineage(facts, asked("e" * 40), view)).ancestors  # it is known not to be there
    shutil.rmtree(mirror.path)
    shutil.rmtree(remote.path)
    with pytest.raises(TrueupError) as error:
        await look_up_lineage(facts, asked(old), view)
    assert not isinstance(error.value, UnknownRevision)
