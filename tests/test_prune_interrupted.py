"""A first sync that was broken off, of a project that left the spec before that was recorded: what it has
placed is found, and taken away."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.serving import serving
from tests.test_prune_projects import HEAD, PROJECT, files_of
from tests.world import Host, World, make_world

WAITS = ("--wait-agents", "100s")
BOTH = {"site/index.html": "hello\n", "site/a": "a\n", "docs/b": "b\n"}


@dataclass
class Case:
    """A host with one project, whose agent is connected. `whole` adds another one, whose sync never ends."""

    world: World
    host: Host
    srv: Path
    there: Path
    before: str
    whole: str

    async def placed(self) -> None:
        """Once the files of both are there, and the sync of the other goes on."""
        await trio.to_thread.run_sync(self.there.read_bytes, abandon_on_cancel=True)
        assert files_of(self.srv) == BOTH


@asynccontextmanager
async def make_case(root: Path) -> AsyncIterator[Case]:
    async with make_world(root) as (world, relay):
        world.app.commit(BOTH)
        srv = root / "hosts" / "web-1" / "srv"
        docs = PROJECT.format(name="docs", target=srv / "docs")
        site = PROJECT.format(name="site", target=srv / "site").replace("sync: {", "sync: {after: [wait], ")
        world.commit_spec(HEAD.format(app=world.app.url) + docs)
        host = await world.add_host("web-1", relay.address)
        there, script = root / "there", root / "wait.sh"
        os.mkfifo(there)
        script.write_text(f"echo here > {there}; exec sleep 600\n")
        host.extra += ["--allow", f"wait=sh {script}"]
        before = world.spec.read("trueup.yaml").decode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.start_agent, host)
            await world.reconcile(*WAITS)
        yield Case(world, host, srv, there, before, before + site)


async def test_a_pass_that_was_killed(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        world = case.world
        world.commit_spec(case.whole)
        await world.kill_during(case.there.read_bytes, "reconcile", *WAITS)
        assert files_of(case.srv) == BOTH

        world.commit_spec(case.before)
        # Where the host is away it is recorded, and waits.
        await world.stop_agents()
        done = await world.reconcile("--wait-agents", "1s", expect=4)
        [step] = done["steps"]
        assert (step["action"], done["outcomes"][step["resource"]]["reason"]) == (
            "remove",
            "AgentUnreachable",
        )
        assert b"AgentUnreachable" in world.status()[f"{step['resource']}.yaml"]

        await world.start_agent(case.host, joined=True)
        done = await world.reconcile(*WAITS)
        assert [step["action"] for step in done["steps"]] == ["remove"]
        assert files_of(case.srv) == {"docs/b": "b\n"}
        assert f"{step['resource']}.yaml" not in world.status()
        assert (await world.reconcile(*WAITS))["steps"] == []


async def test_a_sync_that_was_called_off(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.world.environment["TRUEUP_INTERVAL"] = "24h"
        async with serving(case.world) as primary:
            case.world.commit_spec(case.whole)
            await primary.ask_locally("POST", "/api/reconcile")
            await case.placed()
            (case.srv / "site" / "index.html").write_text("edited\n")
            case.world.commit_spec(case.before)
            await primary.ask_locally("POST", "/api/reconcile")
            await primary.said("step applied", action="remove")
            assert files_of(case.srv) == {"docs/b": "b\n", "site/index.html": "edited\n"}
            # Nothing is left that a status file could say it of.
            await primary.said("'index.html' was changed since it was placed and stays")
