"""Signs of life reach systemd's socket as often as it asked for, and only where it asked."""

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.settings import Settings, load_settings
from reconciler.watchdog import keep_alive


def settings(**environ: str) -> Settings:
    return load_settings({"HOME": "/", **environ})


async def test_a_sign_comes_twice_in_each_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with trio.move_on_after(99):
            await keep_alive(settings(WATCHDOG_USEC="20000000", WATCHDOG_PID=str(os.getpid())))
        said = []
        with pytest.raises(BlockingIOError):
            while True:
                said.append(systemd.recv(100))
        assert said == [b"WATCHDOG=1"] * 10
        with trio.move_on_after(99):
            await keep_alive(settings())
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # meant for another process
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_what_systemd_asks_for(environ: dict[str, str], period: float | None) -> None:
    assert settings(**environ).watchdog == period
