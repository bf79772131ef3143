"""Looks that were taken a moment ago, for the task that follows them: it need not take them again.

A pass looks at its hosts first, and brings its trees to them right after. What somebody changes in between is
what a task finds that he changes right after its own look: where the task has something to do it looks again,
and everything else is for the next look.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from agent.recall import Recalled

FRESH = 2.0
"""Seconds for which a look counts."""

MOST_BYTES = 64 * 1024 * 1024
"""That are held of what all looks have seen, however many targets a host has."""


class RecentLooks:
    """By the record of their target. `expire` has to run beside, so that none stays that counts no more."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[float, Recalled]] = {}
        self._is_any = trio.Event()

    def keep(self, record: Path, recalled: "Recalled") -> None:
        """One that has kept what it has seen, if there is room for that."""
        others = sum(_bytes_of(each) for path, (_, each) in self._kept.items() if path != record)
        if recalled.rows and others + _bytes_of(recalled) <= MOST_BYTES:
            self._kept[record] = trio.current_time() + FRESH, recalled
            self._is_any.set()

    @property
    def held(self) -> int:
        return len(self._kept)

    def take(self, record: Path) -> "Recalled | None":
        """A look that still counts, once."""
        if (kept := self._kept.pop(record, None)) is None:
            return None
        until, recalled = kept
        return recalled if trio.current_time() < until else None

    async def expire(self) -> None:
        """Forgets each look when it counts no more; runs for ever."""
        while True:
            await self._is_any.wait()
            await trio.sleep(FRESH)
            now = trio.current_time()
            self._kept = {record: kept for record, kept in self._kept.items() if kept[0] > now}
            if not self._kept:
                self._is_any = trio.Event()


def _bytes_of(recalled: "Recalled") -> int:
    return sum(map(len, recalled.rows.values()))
