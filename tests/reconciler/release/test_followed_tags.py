"""Which tags of others an environment follows, with tags as a real repository has them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.git.mirror import Mirror
from reconciler.git.objects import Tag
from reconciler.release.current import NoReleaseYet, Release, TagDeleted, TagMoved
from reconciler.release.decide import Decision, decide
from reconciler.release.facts import Common, UnitFacts
from reconciler.spec.model import Environment, ReleasePolicy, Unit
from reconciler.status.documents import Release as Recorded
from reconciler.status.documents import UnitStatus
from tests.gitrepo import GitRepo

UNIT = Unit(name="infra", repository="infra")
STAGING = Environment(name="staging", release=ReleasePolicy(from_branch="main", cut="external"))
PRODUCTION = Environment(name="production", release=ReleasePolicy(promote_from="staging"))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = "5" * 40

Named = Mapping[str, Mapping[str, str] | None]
"""Tag names, each on a commit of its own, with trailers; None: a lightweight tag."""


def decided(environment: Environment, recorded: tuple[str, str] | None, tags: Sequence[Tag]) -> Decision:
    known = None
    if recorded is not None:
        release = Recorded(tag=recorded[0], commit=recorded[1], spec_revision=SPEC, recorded_at=NOW)
        known = UnitStatus(release=release)
    return decide(UnitFacts(UNIT, environment, tags, known), Common(now=NOW, spec_commit=SPEC))


def taken(decision: Decision) -> str:
    return decision.next.tag if decision.next is not None else ""


async def tags_of(tmp_path: Path, named: Named) -> tuple[dict[str, str], Sequence[Tag]]:
    """Commits by tag name, and the tags as the mirror reads them."""
    remote = GitRepo.create(tmp_path / "remote.git")
    commits = {}
    for name, trailers in named.items():
        commits[name] = remote.commit({"file": name})
        if trailers is None:
            remote.tag(name, commits[name], message=None)
        else:
            remote.tag(name, commits[name], trailers=trailers)
    mirror = Mirror(remote.url, tmp_path / "mirror.git", allow_local=True)
    await mirror.refresh()
    return commits, await mirror.tags()


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"v1.9.0": None, "v1.10.0": {}, "v2.0.0-rc.1": {}, "nightly": None}, "v1.10.0"),
        ({"v1.2.3": {"Environment": "staging"}, "v1.3.0": {"Environment": "production"}}, "v1.2.3"),
        ({"v1.0.0": {"Signed-off-by": "A <a@example.org>"}, "v0.9.0": None}, "v1.0.0"),
    ],
)
async def test_the_first_release(tmp_path: Path, named: Named, expected: str) -> None:
    commits, tags = await tags_of(tmp_path, named)
    found = decided(STAGING, None, tags).next
    assert found is not None
    assert (found.tag, found.commit, found.cut) == (expected, commits[expected], False)
    first = decided(PRODUCTION, None, tags)
    assert first.next is None, "nothing is ever taken from tags where releases are promoted to"
    assert isinstance(first.current, NoReleaseYet)
    assert "trueup promote staging production" in str(first.current)


async def test_the_command_that_the_hint_gives_makes_the_release(tmp_path: Path) -> None:
    _, tags = await tags_of(tmp_path, {"v1.2.3": {"Environment": "production"}})
    found = decided(STAGING, None, tags).current
    assert isinstance(found, NoReleaseYet)
    assert "git tag -a v1.3.0 -m 'Release' -m 'Environment: staging'" in str(found)
    remote = GitRepo(tmp_path / "remote.git")
    remote.git("tag", "-a", "v1.3.0", "-m", "Release", "-m", "Environment: staging", "main")
    mirror = Mirror(remote.url, tmp_path / "mirror.git", allow_local=True)
    await mirror.refresh()
    assert taken(decided(STAGING, None, await mirror.tags())) == "v1.3.0"


async def test_an_environment_that_follows_tags_goes_forwards_only(tmp_path: Path) -> None:
    commits, tags = await tags_of(tmp_path, {"v1.0.0": {}, "v1.1.0": {}})
    assert taken(decided(STAGING, ("v1.0.0", commits["v1.0.0"]), tags)) == "v1.1.0"
    newer = ("v1.1.0", commits["v1.1.0"])
    stays = decided(STAGING, newer, [tag for tag in tags if tag.name != "v1.0.0"])
    assert (stays.current, stays.next) == (Release(*newer, SPEC), None)
    gone = decided(STAGING, newer, [tag for tag in tags if tag.name != "v1.1.0"])
    assert isinstance(gone.current, TagDeleted), "a vanished tag does not lead back to an older one"
    assert gone.next is None


async def test_an_environment_that_is_promoted_to_ignores_new_tags(tmp_path: Path) -> None:
    commits, tags = await tags_of(tmp_path, {"v1.0.0": {}, "v9.0.0": {"Environment": "production"}})
    found = decided(PRODUCTION, ("v1.0.0", commits["v1.0.0"]), tags)
    assert (found.current, found.next) == (Release("v1.0.0", commits["v1.0.0"], SPEC), None)
    assert isinstance(decided(PRODUCTION, ("v1.0.0", "a" * 40), tags).current, TagMoved)
