"""What systemd is told: signs of life, so that WatchdogSec= of the unit does not strike, and of a reload."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import trio

from agent.status import notify
from reconciler.settings import Settings


async def keep_alive(settings: Settings) -> NoReturn:
    """Tell systemd so twice within each of its periods, for ever; nothing where it did not ask to be told."""
    while True:
        if settings.watchdog is None:
            await trio.sleep_forever()
        notify("WATCHDOG=1")
        await trio.sleep(settings.watchdog / 2)


@contextmanager
def reloading() -> Iterator[None]:
    """Tell systemd for the time of the block that files are read again, as sd_notify(3) has it."""
    # By the time systemd tells this reload from one before.
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify(f"RELOADING=1\nMONOTONIC_USEC={now}")
    try:
        yield
    finally:
        notify("READY=1")
