"""An operator's machine for tests: access to git, the verbs as real commands, and what they record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from reconciler.control.files import parse_record
from reconciler.control.records import Record
from reconciler.settings import Settings, load_settings
from reconciler.setup import make_key
from tests.canaries import may_hold
from tests.gitrepo import GitRepo, git_environment
from tests.world import World

REF = "refs/heads/trueup/control"
STATUS = "refs/heads/trueup/status"
SPEC = """
version: 1
repositories:
  app: {url: "URL"}
environments:
  staging: {}
  production: {release: {promote_from: staging}}
  lab: {windows: [{allow: "Mon-Thu 09:00-17:00"}]}
services:
  web: {repository: app, environments: [staging, production], deploy: {kind: invoke, task: web}}
"""


def settings_here(directory: Path, remote: GitRepo, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of an operator in this very process, with a master key; `remote` is the spec repository."""
    for name, value in git_environment().items():
        monkeypatch.setenv(name, value)
    may_hold(directory / "state" / "master.key")
    settings = load_settings(
        {
            "TRUEUP_SPEC_REPO": remote.url,
            "TRUEUP_STATE_DIR": str(directory / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
        }
    )
    list(make_key(settings))
    return settings


@asynccontextmanager
async def operator(root: Path) -> AsyncIterator[World]:
    """An operator's machine: access to git, and no master key."""
    async with trio.open_nursery() as nursery:
        world = World(root, 1, nursery)
        world.commit_spec(SPEC.replace("URL", world.app.url))
        yield world
        assert not (world.state / "master.key").exists()
        nursery.cancel_scope.cancel()


def records(spec: GitRepo) -> list[Record]:
    if spec.resolve(REF) is None:
        return []
    return [parse_record(path, content) for path, content in spec.files(REF).items()]


async def refused(world: World, *arguments: str) -> str:
    """The one line of an error; nothing was recorded by it."""
    before = world.spec.resolve(REF)
    ran = await world.trueup(*arguments, expect=1)
    assert (ran.stdout, world.spec.resolve(REF)) == ("", before)
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")
