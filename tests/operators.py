"""An operator's machine for tests: access to git, the verbs as real commands, and what they record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from reconciler.control.files import parse_record
from reconciler.control.records import Record
from tests.gitrepo import GitRepo
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
