"""Whole passes of one primary whose agents are asked while it looks at its own directories; both are real."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.rules import AgentRules
from agent.wire.channel import Channel
from agent.wire.messages import Task, TaskReport, Work
from agent.work import run_work
from reconciler.directories import Directories
from reconciler.primary import Primary, open_primary
from reconciler.reconcile import Pass, reconcile
from reconciler.settings import load_settings
from reconciler.setup import make_key
from tests.canaries import canary, may_hold
from tests.connected import DEADLINE, Node, Setup, connected, make_node
from tests.gitrepo import GitRepo

SPEC = """\
version: 1
nodes: {{web-1: {{token_key: "{token}"}}}}
secret_sources: {{local: {{kind: env_file, file: "{secrets}"}}}}
projects:
  site:
    source: {{directory: "{source}"}}
    sync:
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
      files: [{{path: .env, format: dotenv, secrets: [local]}}]
"""


class Agent:
    """A real one, whose tasks can be seen as they come."""

    def __init__(self, root: Path, state: Path) -> None:
        self._run = partial(run_work, rules=AgentRules(roots=(str(root),)), state_dir=state)
        self.tasks: list[Task] = []
        self.came = trio.Event()

    async def __call__(self, work: Work, channel: Channel) -> TaskReport:
        assert isinstance(work, Task)
        self.tasks.append(work)
        self.came.set()
        return await self._run(work, channel)

    def take(self) -> list[bool]:
        """Which tasks came since this was asked last: whether each only looks."""
        taken, self.tasks, self.came = self.tasks, [], trio.Event()
        return [task.observe for task in taken]


@dataclass
class Site:
    root: Path
    node: Node
    primary: Primary
    agent: Agent
    held_until: Callable[[], trio.Event] | None = None
    """Directories are not looked at before that."""
    _nursery: trio.Nursery = field(kw_only=True)

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def target(self) -> Path:
        return self.root / "srv" / "site"

    def share(self, value: str) -> None:
        secrets = self.root / "secrets.env"
        secrets.touch(mode=0o600)
        secrets.write_text(f"PASSWORD={value}\n")

    def read_directory(self, read: Callable[..., Any], *arguments: object) -> None:
        """Begin what looks at a directory, in its time."""

        async def begin() -> None:
            if self.held_until is not None:
                await self.held_until().wait()
            await read(*arguments)

        self._nursery.start_soon(begin)

    async def one_pass(self) -> Pass:
        with trio.fail_after(DEADLINE):
            return await reconcile(self.primary, patience=0)


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Site]:
    """One whose target was synced and looked at since."""
    for directory in (root / "source", root / "srv", root / "agent"):
        directory.mkdir()
    node = make_node(root)
    spec = GitRepo.create(root / "spec.git")
    paths = {"source": root / "source", "target": root / "srv" / "site", "secrets": root / "secrets.env"}
    spec.commit({"trueup.yaml": SPEC.format(token=node.token.public_text, **paths)})
    settings = load_settings(
        {
            "TRUEUP_SPEC_REPO": spec.url,
            "TRUEUP_STATE_DIR": str(root / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "SYNC_TCP_ADDR": "127.0.0.1:0",
            "PATH": os.environ["PATH"],
        }
    )
    may_hold(root / "state" / "master.key")
    may_hold(root / "secrets.env")
    may_hold(root / "srv" / "site" / ".env")
    list(make_key(settings))
    async with open_primary(settings) as primary, trio.open_nursery() as nursery:
        site = Site(root, node, primary, Agent(root / "srv", root / "agent"), _nursery=nursery)
        primary.directories = Directories(site.read_directory, (settings.state_dir,))
        (site.source / "page.html").write_text("one\n")
        site.share(canary("early-one"))
        first = await site.one_pass()
        assert first.away == {"web-1"}
        assert first.problems == ()
        assert primary.hub is not None
        async with connected(Setup(primary.hub), node, site.agent):
            await site.one_pass()
            assert (site.target / "page.html").read_text() == "one\n"
            assert (await site.one_pass()).plan.steps == ()
            site.agent.take()
            yield site
            nursery.cancel_scope.cancel()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as site:
        yield site


async def test_a_host_is_looked_at_while_the_directory_is(site: Site) -> None:
    """The directory is read only after the agent was asked: one after the other would never end."""
    site.held_until = lambda: site.agent.came
    done = await site.one_pass()
    assert (done.plan.steps, done.plan.findings, done.status_commit) == ((), (), None)
    assert site.agent.take() == [True]

    # What was edited there is found by the same one look, and mended.
    (site.target / "page.html").write_text("edited\n")
    done = await site.one_pass()
    assert [step.reason for step in done.plan.steps] == ["drift: files differ from what was placed"]
    assert (site.target / "page.html").read_text() == "one\n"
    assert site.agent.take() == [True, False]

    # Also in the pass after that, whose tree is another one.
    (site.source / "page.html").write_text("two\n")
    await site.one_pass()
    assert (site.target / "page.html").read_text() == "two\n"
    site.agent.take()
    (site.target / "page.html").unlink()
    done = await site.one_pass()
    assert len(done.plan.steps) == 1
    assert (site.target / "page.html").read_text() == "two\n"
    assert site.agent.take() == [True, False]


async def test_another_secret_is_asked_for_anew(site: Site) -> None:
    site.share(canary("early-two"))
    site.primary.read_files_again()
    site.held_until = lambda: site.agent.came
    done = await site.one_pass()
    assert len(done.plan.steps) == 1
    before, after, step = site.agent.tasks
    assert canary("early-one").encode() in before.rendered[0].content
    assert canary("early-two").encode() in after.rendered[0].content
    assert after.rendered == step.rendered
    assert canary("early-two") in (site.target / ".env").read_text()
    site.agent.take()
    assert (await site.one_pass()).plan.steps == ()
    assert site.agent.take() == [True]


async def test_secrets_that_are_to_be_forgotten_are_kept_for_no_look(site: Site) -> None:
    assert [len(sync.rendered) for sync in site.primary.asked_last.syncs.values()] == [1]
    assert site.primary.spec is not None
    site.primary.forget_secrets(site.primary.spec, "local")
    assert site.primary.asked_last.syncs == {}
    await site.one_pass()
    assert site.agent.take() == [True]
