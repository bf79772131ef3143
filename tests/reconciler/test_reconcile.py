"""Whole passes in this process over real repositories: what a killed or refused pass leaves to the next."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reconciler.errors import SettingsError, TrueupError
from reconciler.journal import Journal
from reconciler.primary import Primary, open_primary
from reconciler.reconcile import Pass, prepare, reconcile
from reconciler.settings import load_settings
from reconciler.setup import make_key
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble
from tests.gitrepo import GitRepo

SPEC = """\
version: 1
repositories: {{app: {{url: "{app}"}}}}
environments: {{staging: {{release: {{cut: external}}}}}}
services:
  {name}: {{repository: app, paths: [web], deploy: {{kind: invoke, task: deploy}}, environments: [staging]}}
"""
TASKS = """\
from pathlib import Path
from invoke import task

@task
def deploy(c):
    if Path({root!r}, "broken").exists():
        raise SystemExit(3)
    with Path({root!r}, "deployed").open("a") as log:
        log.write(Path("web").read_text())
"""
WEB = "services/staging/web"


class Installation:
    """A spec repository, an application that was released once, and a state directory with a key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = GitRepo.create(root / "spec.git")
        self.app = GitRepo.create(root / "app.git")
        self.app.commit({"tasks.py": TASKS.format(root=str(root)), "web": "one\n"})
        self.app.tag("v1.0.0")
        self.commit_spec()
        self.settings = load_settings(
            {
                "TRUEUP_SPEC_REPO": self.spec.url,
                "TRUEUP_STATE_DIR": str(root / "state"),
                "TRUEUP_ALLOW_LOCAL_REPOS": "1",
                "PATH": os.environ["PATH"],
            }
        )
        may_hold(root / "state" / "master.key")
        list(make_key(self.settings))

    def commit_spec(self, name: str = "web", more: str = "") -> None:
        self.spec.commit({"trueup.yaml": SPEC.format(app=self.app.url, name=name) + more})

    def release(self, version: int) -> None:
        self.app.commit({"web": f"{version}\n"})
        self.app.tag(f"v{version}.0.0")

    @property
    def deployed(self) -> list[str]:
        return (self.root / "deployed").read_text().splitlines()

    @asynccontextmanager
    async def primary(self) -> AsyncIterator[Primary]:
        async with open_primary(self.settings) as primary:
            yield primary

    async def one_pass(self, *forced: str) -> Pass:
        async with self.primary() as primary:
            return await reconcile(primary, patience=0, forced=forced)

    async def planned(self) -> list[tuple[str, str]]:
        async with open_primary(self.settings, exclusive=False) as primary:
            plan = (await prepare(primary, patience=None)).plan
        return [(step.resource, step.action.value) for step in plan.steps]

    def journal(self) -> Journal:
        return Journal(self.settings.state_dir / "journal.sqlite")

    def refuse_pushes(self) -> Callable[[], None]:
        """A hook that refuses all pushes to branches of the spec repository; returns what takes it away."""
        hook = self.spec.path / "hooks" / "update"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\ncase "$1" in refs/heads/*) exit 1;; esac\n')
        hook.chmod(0o755)
        return hook.unlink


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


async def test_a_pass_and_then_nothing(installed: Installation) -> None:
    assert await installed.planned() == [(WEB, "deploy")]
    assert (await installed.one_pass()).status_commit is not None
    assert installed.deployed == ["one"]
    again = await installed.one_pass()
    assert (again.plan.steps, again.plan.findings, again.status_commit) == ((), (), None)
    assert await installed.planned() == []


async def test_what_could_not_be_published_is_told_by_the_next_pass(installed: Installation) -> None:
    allow = installed.refuse_pushes()
    with pytest.raises(TrueupError):
        await installed.one_pass()
    assert installed.deployed == ["one"]
    allow()
    done = await installed.one_pass()
    assert done.plan.steps == ()
    assert done.status_commit is not None
    assert installed.deployed == ["one"]
    assert (await installed.one_pass()).status_commit is None


async def test_what_could_not_be_published_is_told_of_a_resource_that_was_renamed(
    installed: Installation,
) -> None:
    await installed.one_pass()
    installed.release(2)
    allow = installed.refuse_pushes()
    with pytest.raises(TrueupError):
        await installed.one_pass()
    assert installed.deployed == ["one", "2"]
    allow()
    installed.commit_spec("site", "moved: [{from: services/web, to: services/site}]\n")
    assert (await installed.one_pass()).plan.steps == ()
    assert await installed.planned() == []
    assert installed.deployed == ["one", "2"]
    files = installed.spec.files("refs/heads/trueup/status")
    assert [path for path in files if path.startswith("services/")] == ["services/staging/site.yaml"]


@pytest.mark.parametrize(("action", "steps"), [("deploy", [(WEB, "deploy")]), ("adopt", []), ("forget", [])])
async def test_only_an_interrupted_step_that_acts_is_done_again(
    installed: Installation, action: str, steps: list[tuple[str, str]]
) -> None:
    """As left by a process that was killed between the begin and the end of a step."""
    await installed.one_pass()
    with installed.journal() as journal:
        journal.begin_step(journal.begin_pass("main@sha1:1"), WEB, action, "v1:1:2:3", "test")
    assert await installed.planned() == steps


async def test_transitions_are_events(installed: Installation) -> None:
    await installed.one_pass()
    (installed.root / "broken").touch()
    installed.release(2)
    for _ in range(2):
        await installed.one_pass()
    (installed.root / "broken").unlink()
    await installed.one_pass()
    with installed.journal() as journal:
        events = [(event.kind, event.resource, event.reason) for event in reversed(journal.events())]
    assert events == [
        ("failed", WEB, "DeployFailed"),
        ("failed", "summary", "DependencyNotReady"),
        ("recovered", WEB, "ReconciliationSucceeded"),
        ("recovered", "summary", "ReconciliationSucceeded"),
    ]
    assert installed.deployed == ["one", "2"]


async def test_a_deploy_that_fails_the_same_way_again_adds_no_commit(installed: Installation) -> None:
    (installed.root / "broken").touch()
    first = await installed.one_pass()
    again = await installed.one_pass()
    assert [done.outcomes[WEB].state for done in (first, again)] == ["failed", "failed"]
    assert (first.status_commit is not None, again.status_commit) == (True, None)


async def test_a_forced_resource_is_deployed_and_one_that_is_not_there_is_an_error(
    installed: Installation,
) -> None:
    await installed.one_pass()
    assert [step.reason for step in (await installed.one_pass(WEB)).plan.steps] == ["forced"]
    assert installed.deployed == ["one", "one"]
    with pytest.raises(SettingsError, match="did you mean services/staging/web"):
        await installed.one_pass("services/staging/wbe")


async def test_tasks_that_a_killed_process_left_are_failed(installed: Installation) -> None:
    with installed.journal() as journal:
        journal.create_task("t", "projects/branch/site/web-1/srv", "web-1")
        journal.begin_attempt("t")
    async with installed.primary() as primary:
        [task] = primary.journal.tasks()
    assert (task.state, task.attempts[0].reason) == ("FAILED", "Interrupted")


async def test_a_state_directory_serves_one_pass_at_a_time(installed: Installation) -> None:
    async with installed.primary():
        with pytest.raises(SettingsError, match="another trueup works on"):
            await installed.one_pass()
        assert await installed.planned() == [(WEB, "deploy")]


async def test_a_lock_that_cannot_be_opened(installed: Installation) -> None:
    (installed.settings.state_dir / "primary.lock").mkdir()
    with pytest.raises(SettingsError, match="cannot be opened"):
        await installed.one_pass()


async def test_a_refused_login_is_not_repeated_when_the_spec_changes(tmp_path: Path) -> None:
    place = Installation(tmp_path)
    for name in ("id", "secret"):
        may_hold(tmp_path / name).write_text(canary(f"wrong-{name}"))
    with InfisicalDouble() as double:
        source = (
            f"kind: infisical, host: {double.url!r}, project_id: p, environment_slug: %s,"
            f" client_id: {{file: {tmp_path / 'id'}}}, client_secret: {{file: {tmp_path / 'secret'}}}"
        )
        service = "repository: app, secrets: [vault], deploy: {kind: manual}, environments: [staging]"
        async with place.primary() as primary:
            for slug in ("dev", "prod", "staging", "qa"):
                place.commit_spec(
                    more=f"  uses: {{{service}}}\nsecret_sources: {{vault: {{{source % slug}}}}}\n"
                )
                done = await reconcile(primary, patience=0)
                assert done.problems == ()
        assert (double.calls("login"), double.calls("list")) == (1, 0)


async def test_a_note_is_logged_once_for_each_change_and_told_by_every_pass(tmp_path: Path) -> None:
    place = Installation(tmp_path)
    deploy = "deploy: {kind: invoke, task: deploy}, environments: [staging]"
    odd = f"  %s: {{repository: app, paths: [nope], {deploy}}}\n"
    place.commit_spec(more=odd % "odd")

    async def logged(primary: Primary) -> list[str]:
        with capture_logs() as lines:
            done = await reconcile(primary, patience=0)
        assert any("`nope`" in note for note in done.notes)
        return [line["event"].split(":")[1] for line in lines if "`nope`" in line["event"]]

    async with place.primary() as primary:
        assert await logged(primary) == [" services/staging/odd"]
        assert await logged(primary) == []
        place.commit_spec(more=odd % "odd" + odd % "new")
        assert await logged(primary) == [" services/staging/new"]
