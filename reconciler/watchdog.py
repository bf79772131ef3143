"""Signs of life for systemd: as long as the event loop turns, WatchdogSec= of the unit does not strike."""

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
