"""Looking things up: what could not be looked up is a setback of those who need it, and of nobody else."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from reconciler.control.state import ControlState
from reconciler.desired import Facts, Revision, make_desired
from reconciler.gather import gather_facts, releases_of
from reconciler.git.process import GitOptions
from reconciler.keys import MasterKey
from reconciler.observation import Setback
from reconciler.release.facts import Common
from reconciler.release.look import decide_releases
from reconciler.repositories import Repositories
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.template import MAX_TEMPLATE
from reconciler.settings import load_settings
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.status.conditions import Reason
from reconciler.status.documents import EnvironmentStatus, Recorded, Release, UnitStatus
from reconciler.views import view_repositories
from tests.canaries import canary, may_hold
from tests.gitrepo import Content, GitRepo, Link
from tests.reconciler.facts import TOKEN_KEY
from tests.reconciler.status.documents import MOMENT

SPEC = """\
version: 1
repositories: {{app: {{url: "{app}"}}, other: {{url: "{other}"}}}}
environments: {{staging: {{release: {{cut: external}}}}}}
secret_sources: {{local: {{kind: env_file, file: "{env_file}"}}, gone: {{kind: env_file, file: "{missing}"}}}}
nodes: {{web-1: {{token_key: "{token}"}}}}
services:
  web:
    repository: app
    secrets: [local]
    environ: [LEVEL, UNSET]
    deploy: {{kind: invoke, task: t}}
    environments: [staging]
  needy: {{repository: app, secrets: [gone], deploy: {{kind: invoke, task: t}}, environments: [staging]}}
  far: {{repository: other, deploy: {{kind: invoke, task: t}}, environments: [staging]}}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      ignore_file: sync.ignore
      nodes: [{{node_id: web-1, target_path: /srv/a}}]
      files: [{{path: a, template: deploy/a.j2}}, {{path: b, template: deploy/a.j2}}]
  lost: {{repository: app, branch: nxt, sync: {{nodes: [{{node_id: web-1, target_path: /srv/b}}]}}}}
"""

SPEC_COMMIT = "5" * 40


class Place:
    """A repository that is there, one that is not, and what a pass looks up in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.app = GitRepo.create(root / "app.git")
        site = {"site/index.html": "1", "site/sync.ignore": "*.log\n", "deploy/a.j2": "é"}
        self.first = self.app.commit({"web/x": "1", **site})
        self.app.tag("v1.0.0")
        env_file = may_hold(root / "local.env")
        env_file.write_text(f"DB_URL={canary('gathered')}\n")
        env_file.chmod(0o600)
        (root / "mirrors").mkdir()
        self.repositories = Repositories(root / "mirrors", GitOptions(allow_local=True))
        text = SPEC.format(
            app=self.app.url,
            other=(root / "nowhere.git").as_uri(),
            env_file=env_file,
            missing=root / "missing.env",
            token=TOKEN_KEY,
        )
        self.spec = load_or_raise({SPEC_FILE: text.encode()})

    async def look(self, recorded: Recorded | None = None, *, level: str = "high") -> Facts:
        self.repositories.begin_pass()
        views = await view_repositories(self.spec.repositories.values(), self.repositories)
        common = Common(now=MOMENT, spec_commit=SPEC_COMMIT)
        decided = await decide_releases(self.spec, views, recorded or Recorded(), common, self.repositories)
        return await gather_facts(
            self.spec,
            "main@sha1:1",
            repositories=self.repositories,
            views=views,
            releases=releases_of(decided.decisions),
            store=SecretStore(self.spec.secret_sources, context=SourceContext(Credentials({}))),
            settings=load_settings({"TRUEUP_STATE_DIR": str(self.root / "state"), "LEVEL": level}),
            key=MasterKey.generate(),
            suspended=ControlState(),
            directories={},
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def reasons(found: Iterable[object]) -> list[str]:
    return [setback.reason for setback in found if isinstance(setback, Setback)]


async def test_everything_that_is_there_and_a_setback_for_the_rest(place: Place) -> None:
    facts = await place.look()
    assert facts.releases["app", "staging"] == Revision("v1.0.0", place.first, SPEC_COMMIT)
    assert facts.branches["app", "main"] == Revision("main", place.first)
    assert facts.ignore_files == {(place.first, "site/sync.ignore"): "*.log\n"}
    assert facts.templates == {(place.first, "deploy/a.j2"): "é"}
    assert list(facts.commits) == [place.first]
    assert {
        name: value.reveal() for name, value in facts.environ.items() if not isinstance(value, Setback)
    } == {"LEVEL": "high"}
    assert reasons(facts.releases.values()) == [Reason.REPOSITORY_UNAVAILABLE]
    assert reasons(facts.branches.values()) == [Reason.REVISION_NOT_FOUND]
    assert reasons(facts.secrets.values()) == [Reason.SECRET_FETCH_FAILED]


async def test_a_variable_of_the_primary_that_is_no_text(place: Place) -> None:
    facts = await place.look(level=canary("level") + "\udcff")
    (setback,) = facts.environ.values()
    assert isinstance(setback, Setback)
    assert setback.reason == Reason.VARIABLE_INVALID
    assert setback.message.startswith("environ: the value of LEVEL is not valid text")
    assert canary("level") not in repr(setback)


async def test_a_setback_stays_with_the_resource_that_needs_the_thing(place: Place) -> None:
    made = make_desired(await place.look())
    assert {
        resource.id: resource.setback.unknown if resource.setback is not None else None
        for resource in made.resources
    } == {
        "services/staging/web": None,
        "services/staging/needy": False,
        "services/staging/far": True,
        "projects/branch/site/web-1/srv+a": None,
        "projects/branch/lost/web-1/srv+b": False,
    }


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        (None, Reason.REVISION_NOT_FOUND, "`deploy/a.j2` does not exist in main@sha1:"),
        (b"one\ntwo \xff", "TemplateInvalid", "deploy/a.j2:2: this is not UTF-8; save the file as UTF-8"),
        ("x" * (MAX_TEMPLATE + 1), Reason.GIT_REFUSED, "'deploy/a.j2' has 65537 bytes, the limit is 65536"),
        (Link("../../etc/passwd"), Reason.GIT_REFUSED, "'deploy/a.j2' is a symbolic link"),
    ],
)
async def test_a_template_that_cannot_be_read(
    place: Place, content: Content | None, reason: str, text: str
) -> None:
    place.app.commit({"deploy/a.j2": content})
    resources = {resource.id: resource.setback for resource in make_desired(await place.look()).resources}
    setback = resources["projects/branch/site/web-1/srv+a"]
    assert setback is not None
    assert (setback.reason, setback.unknown) == (reason, False)
    assert text in setback.message
    assert resources["services/staging/web"] is None


def recorded_at(tag: str, commit: str) -> Recorded:
    release = Release(tag=tag, commit=commit, spec_revision=SPEC_COMMIT, recorded_at=MOMENT)
    status = EnvironmentStatus(id="environments/staging", units={"app": UnitStatus(release=release)})
    return Recorded().put(status)


async def test_a_release_goes_forwards_only(place: Place) -> None:
    """Whatever tags come and go, an older one is never run instead of the recorded one."""
    recorded = recorded_at("v1.0.0", place.first)
    place.app.tag("v0.9.0", place.app.commit({"web/x": "older"}))
    assert (await place.look(recorded)).releases["app", "staging"] == Revision(
        "v1.0.0", place.first, SPEC_COMMIT
    )
    newer = place.app.commit({"web/x": "newer"})
    place.app.tag("v1.1.0", newer)
    assert (await place.look(recorded)).releases["app", "staging"] == Revision("v1.1.0", newer, SPEC_COMMIT)
    place.app.delete("refs/tags/v1.1.0")
    gone = (await place.look(recorded_at("v1.1.0", newer))).releases["app", "staging"]
    assert isinstance(gone, Setback)
    assert (gone.reason, gone.unknown) == (Reason.REVISION_NOT_FOUND, False)


async def test_no_value_shows_in_the_facts(place: Place) -> None:
    facts = await place.look()
    assert canary("gathered") not in repr(facts.secrets)
    assert canary("gathered") not in repr(make_desired(facts))
