"""`systemctl reload`: what a running primary tells systemd when it gets SIGHUP, and that it goes on."""

import signal
import socket
import time
from pathlib import Path

import trio

from tests.serving import serving
from tests.world import PATIENCE, make_world

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
"""


async def test_systemd_is_told_of_a_reload_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        world.app.commit({"a": "one\n"})
        world.commit_spec(SPEC.format(app=world.app.url))
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            await systemd.bind(str(tmp_path / "notify"))

            async def told() -> str:
                with trio.fail_after(PATIENCE):
                    return (await systemd.recv(4096)).decode()

            async with serving(world, NOTIFY_SOCKET=str(tmp_path / "notify")) as primary:
                assert await told() == "READY=1"
                # Told once for each reload, and by the clock that systemd compares with.
                for _ in range(2):
                    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                    primary.process.send_signal(signal.SIGHUP)
                    state, _, at = (await told()).partition("\n")
                    assert state == "RELOADING=1"
                    name, _, moment = at.partition("=")
                    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                    assert name == "MONOTONIC_USEC" and before <= int(moment) <= after
                    assert await told() == "READY=1"
                await primary.said("a pass was asked for", why="SIGHUP")
                assert (await primary.ask("GET", "/health")).json()["live"]
                assert await primary.end() == 0
                assert await told() == "STOPPING=1"
