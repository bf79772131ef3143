"""A running primary as a real process: its start and end, being killed, errors, agents that come back."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.contracts.infisical_double import InfisicalDouble
from tests.serve_world import HEALTHY, SYNCED, applied, deploys, fill, reader_of
from tests.serving import serving
from tests.world import PATIENCE, make_world


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


async def test_a_killed_primary_is_followed_by_another(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        async with serving(world) as first:
            await applied(first, "database")
            second = await world.trueup("serve", expect=1)
            assert "another trueup works on" in second.stderr
            assert await first.end(signal.SIGKILL) == -signal.SIGKILL
        assert (world.state / "trueup.sock").exists()
        async with serving(world) as primary:
            assert (await primary.ask_locally("GET", "/health")).json()["status"] == "ok"
            assert await primary.end() == 0
        assert deploys(world, "database") == ["v1.0.0"]


async def test_a_stop_waits_for_the_pass_and_a_second_one_does_not(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        held = world.deployed / "hold-database"
        os.mkfifo(held)
        async with serving(world) as primary:
            running = await reader_of(held)
            primary.process.send_signal(signal.SIGTERM)
            await primary.said("stopping")
            os.close(running)
            with trio.fail_after(PATIENCE):
                assert await primary.process.wait() == 0
        assert deploys(world, "database") == ["v1.0.0"]

        world.app.commit({"database/compose.yaml": "two\n"})
        world.app.tag("v1.1.0")
        async with serving(world) as primary:
            running = await reader_of(held)
            primary.process.send_signal(signal.SIGTERM)
            await primary.said("stopping")
            assert await primary.end() == 0
        os.close(running)
        held.unlink()
        assert deploys(world, "database") == ["v1.0.0"]
        async with serving(world) as primary:
            await applied(primary, "database")
        assert deploys(world, "database") == ["v1.0.0", "v1.1.0"]


async def test_errors_of_a_pass_are_one_line_and_the_loop_goes_on(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        good = world.spec.files("refs/heads/main")["trueup.yaml"]
        world.commit_spec("version: 1\nservices: [1, 2\n")
        async with serving(world) as primary:
            line = await primary.said("no pass could be made")
            assert line["error"].startswith("trueup.yaml:") and "\n" not in line["error"]
            assert (await primary.ask("GET", "/health")).json() == HEALTHY | {"ready": False}
            early = await primary.ask_locally("GET", "/api/secrets")
            assert (early.status_code, early.json()["reason"]) == (503, "NoPassYet")
            world.commit_spec(good.decode())
            asked = await primary.ask_locally("POST", "/api/reconcile")
            assert asked.status_code == 202
            await applied(primary, "database")
            assert await primary.end() == 0


async def test_what_cannot_be_had_is_said_at_the_start(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ran = await world.trueup("serve", expect=1, TRUEUP_HTTP_ADDR=f"127.0.0.1:{port}")
        assert "error: TRUEUP_HTTP_ADDR: cannot listen on" in ran.stderr
        (world.state / "trueup.sock").write_text("something of yours")
        ran = await world.trueup("serve", expect=1, TRUEUP_HTTP_ADDR="127.0.0.1:0")
        assert f"error: {world.state}/trueup.sock: is in the way and is no socket" in ran.stderr
        assert "Traceback" not in ran.stderr


INSPECTED = """\
import atexit, ctypes, resource, sys
from pathlib import Path
from reconciler.cli import main

def inspect():
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    Path("inspected").write_text(f"{dumpable} {resource.getrlimit(resource.RLIMIT_CORE)[0]}")

atexit.register(inspect)
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
main()
"""


async def test_no_core_dumps(tmp_path: Path, double: InfisicalDouble) -> None:
    """And tasks, which are started from such a process, go on as ever."""
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        ran = await world.run(["-c", INSPECTED, "reconcile"])
        assert ran.exit_code == 0, ran.stderr
        assert (world.root / "inspected").read_text() == "0 0"
        assert deploys(world, "database") == ["v1.0.0"]
        (world.root / "inspected").unlink()
        world.app.commit({"database/compose.yaml": "two\n"})
        world.app.tag("v1.1.0")
        async with serving(world, command=("-c", INSPECTED)) as primary:
            await applied(primary, "database")
            assert core_limit_of(primary.process.pid) == "0"
            assert await primary.end() == 0
        assert (world.root / "inspected").read_text() == "0 0"
        assert deploys(world, "database") == ["v1.0.0", "v1.1.0"]


def core_limit_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4]


async def test_agents_stay_connected_and_one_that_comes_back_is_seen_to(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, relay):
        fill(world, double)
        target = world.root / "hosts/web-1/srv/site"
        world.commit_spec(SYNCED.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address, "group=web")
        async with serving(world) as primary:
            await world.start_agent(host)
            await primary.applied(action="sync")
            assert (target / "compose.yaml").read_text() == "one\n"
            await world.stop_agents()

            world.app.commit({"api/compose.yaml": "two\n"})
            told = len(primary.lines)
            await primary.ask_locally("POST", "/api/reconcile")
            await primary.said("pass ended", after=told)
            assert (target / "compose.yaml").read_text() == "one\n"
            await world.start_agent(host, joined=True)
            await primary.said("a pass was asked for", after=told, why="connected: web-1")
            await primary.said("step applied", after=told, action="sync")
            assert (target / "compose.yaml").read_text() == "two\n"
            # Also where no pass missed it: it may have been lost in the middle of a step.
            await world.stop_agents()
            told = len(primary.lines)
            await world.start_agent(host, joined=True)
            await primary.said("a pass was asked for", after=told, why="connected: web-1")
            assert await primary.end() == 0
