"""A transfer to a node whose network hangs: others go on, and a newer commit takes its place."""

import random
from pathlib import Path

import trio

from tests.serving import Line, Serving, serving
from tests.specs import ONE_SITE
from tests.world import Host, Relay, World, make_world, tree_of

SPEC = (
    ONE_SITE
    + """\
      retry: {{attempts: 50, backoff: 1s, max_backoff: 1s}}
      nodes:
        - {{labels: {{at: web-1}}, target_path: "{root}/web-1/srv/site"}}
        - {{labels: {{at: web-2}}, target_path: "{root}/web-2/srv/site"}}
"""
)
ENOUGH = 300_000
"""Bytes to an agent on one connection, after which a held relay passes on nothing more."""


class HeldRelay(Relay):
    """Passes on the beginning of a transfer, and the rest once it is let go."""

    def __init__(self, listener: trio.SocketListener, port: int) -> None:
        super().__init__(listener, port)
        self.holds = trio.Event()
        self.go_on = trio.Event()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, counter: str, scope: trio.CancelScope
    ) -> None:
        passed = 0
        try:
            async for data in source:
                passed += len(data)
                if counter == "to_agent" and passed > ENOUGH and not self.go_on.is_set():
                    self.holds.set()
                    await self.go_on.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


async def placed(primary: Serving, node: str, *, after: int = 0) -> None:
    """Once what is to be on a node is there: long before the pass is over that waits for all."""

    def find() -> Line | None:
        steps = [line for line in primary.lines[after:] if line["event"] == "step applied"]
        return next((line for line in steps if line["resource"].split("/")[3] == node), None)

    await primary.until(find, f"applied on {node}")


def contents(world: World, version: str) -> str:
    """A commit with files, of which every second one is of this version alone."""
    numbers = random.Random(version)
    return world.app.commit(
        {
            f"site/{number:03}.bin": (numbers if number % 2 else random.Random(number)).randbytes(40_000)
            for number in range(40)
        }
    )


async def test_a_newer_commit_takes_the_place_of_a_transfer_that_hangs(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay), trio.open_nursery() as nursery:
        world.environment["TRUEUP_INTERVAL"] = "24h"
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        held = HeldRelay(listener, world.port)
        nursery.start_soon(held.serve)
        contents(world, "one")
        world.commit_spec(SPEC.format(app=world.app.url, root=tmp_path / "hosts"))
        hosts: list[Host] = [
            await world.add_host("web-1", held.address, "at=web-1"),
            await world.add_host("web-2", relay.address, "at=web-2"),
        ]
        async with serving(world) as primary:
            for host in hosts:
                await world.start_agent(host)
            await held.holds.wait()
            await placed(primary, "web-2")
            assert not (hosts[0].srv / "site" / "039.bin").exists()

            second, told = contents(world, "two"), len(primary.lines)
            assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            await primary.said("step called off", after=told, why=f"main@sha1:{second} is to be there now")
            await placed(primary, "web-2", after=told)
            held.go_on.set()
            await placed(primary, "web-1", after=told)
            assert tree_of(hosts[0].srv) == tree_of(hosts[1].srv)

            tasks = (await primary.ask_locally("GET", "/api/sync/tasks?node=web-1")).json()["tasks"]
            assert [task["state"] for task in tasks] == ["SUCCESS", "FAILED"]
            assert not [line for line in primary.lines if line.get("level") == "error"]
            assert await primary.end() == 0
        nursery.cancel_scope.cancel()


async def test_a_transfer_of_what_is_suspended_is_broken_off_and_carried_on_later(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _), trio.open_nursery() as nursery:
        world.environment["TRUEUP_INTERVAL"] = "24h"
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        held = HeldRelay(listener, world.port)
        nursery.start_soon(held.serve)
        contents(world, "one")
        spec = SPEC.format(app=world.app.url, root=tmp_path / "hosts")
        world.commit_spec("".join(line for line in spec.splitlines(keepends=True) if "web-2" not in line))
        host = await world.add_host("web-1", held.address, "at=web-1")
        async with serving(world) as primary:
            await world.start_agent(host)
            await held.holds.wait()
            await world.trueup("suspend", "projects/site", "--reason", "not now")
            line = await primary.said("step called off")
            assert "is suspended by" in line["why"]
            assert "not now" in line["why"]
            held.go_on.set()

            told = len(primary.lines)
            await world.trueup("resume", "projects/site")
            await placed(primary, "web-1", after=told)
            assert len(tree_of(host.srv / "site")) == 40
            assert not [line for line in primary.lines if line.get("level") == "error"]
            assert await primary.end() == 0
        nursery.cancel_scope.cancel()
