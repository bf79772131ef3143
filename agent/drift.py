"""Tells the primary, unasked, of targets that are no longer as a task left them.

All targets are looked at in turn, at an interval with jitter, and one soon after something happened in it;
only while somebody is there to be told.
A difference is told once: again only if it becomes another one, or to the next primary.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from agent.errors import TrueupError
from agent.failures import line_of
from agent.hints import Hints
from agent.link import LinkLost
from agent.routing import Session
from agent.rules import AgentRules
from agent.wire.messages import NOTICES_SINCE, DriftReport

if TYPE_CHECKING:
    from agent.compare import Remembered

INTERVAL: Final = 300.0
"""Seconds between two looks, unless agent.toml says otherwise."""

JITTER: Final = 0.1
"""Share of the interval by which a look comes earlier or later, so that a fleet spreads out."""

MAX_TARGETS: Final = 1000
"""Targets that are looked at; a host has a handful."""

QUIET: Final = 2.0
"""Seconds from a change that the kernel tells of to a look at the target."""

PAUSE: Final = 10.0
"""Seconds from that look to the next one for such a reason at the same target; more where it was in vain."""

REFRESH: Final = 30.0
"""Seconds after which what is to be watched is looked up again: a task may have placed more."""

_log = logging.getLogger("trueup.agent")


class DriftWatch:
    """`interval` in seconds, 0 for never; `draw` gives numbers from 0 to 1. After each look `looked` is told
    how many entries differ in all. `quiet` and `pause`: seconds from a change to the look for it, and from
    that to the next one at the same target."""

    def __init__(
        self,
        rules: AgentRules,
        state_dir: Path,
        *,
        interval: float = INTERVAL,
        draw: Callable[[], float] = random.random,
        looked: Callable[[int], Awaitable[None]] | None = None,
        quiet: float = QUIET,
        pause: float = PAUSE,
    ) -> None:
        self._rules = rules
        self._state_dir = state_dir
        self._interval = interval
        self._draw = draw
        self._memory: dict[Path, Remembered] = {}
        self._told: dict[Path, bytes] = {}
        self._listener: Session | None = None
        self._looked = looked
        self._counts: dict[Path, int] = {}
        self._looking = trio.Lock()
        self._quiet = quiet
        self._hints = Hints(quiet=quiet, pause=pause, longest=max(interval, pause))

    async def run(self, session: Callable[[], Session | None]) -> None:
        """Look and tell, for ever. `session`: the one that stands now."""
        if self._interval <= 0:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._at_intervals, session)
            nursery.start_soon(self._after_changes, session)

    async def _at_intervals(self, session: Callable[[], Session | None]) -> None:
        await trio.sleep(self._interval * self._draw())
        while True:
            listener = session()
            if listener is not None and listener.protocol >= NOTICES_SINCE:
                await self.look(listener)
            await trio.sleep(self._interval * (1 + JITTER * (2 * self._draw() - 1)))

    async def _after_changes(self, session: Callable[[], Session | None]) -> None:
        """Look at targets in whose directories something happened."""
        from agent.local_changes import LocalChanges

        try:
            changes = LocalChanges(self._rules, self._state_dir)
        except OSError as error:
            _log.info("targets are looked at only at intervals: %s", line_of(error))
            return
        try:
            while True:
                records = await trio.to_thread.run_sync(self._records)
                self._hints.keep(records)
                new = await changes.refresh(records)
                self._hints.placed(new, trio.current_time())
                with trio.move_on_at(min(self._hints.due_at, trio.current_time() + REFRESH)):
                    self._hints.add(await changes.wait(), trio.current_time())
                    await trio.sleep(self._quiet / 2)  # so that a storm of notices is read in few goes
                due = self._hints.due(trio.current_time())
                listener = session()
                if not due:
                    continue
                if listener is None or listener.protocol < NOTICES_SINCE:
                    self._hints.put_off(due, trio.current_time())
                else:
                    told = await self._look_at(sorted(due), listener)
                    self._hints.looked(due, told, trio.current_time())
        finally:
            changes.close()

    async def look(self, listener: Session) -> None:
        """Look at all targets once, and tell of those that differ from what was told."""
        await self._look_at(await trio.to_thread.run_sync(self._records), listener, whole=True)

    def _records(self) -> list[Path]:
        found = (self._state_dir / "targets").glob("*")
        return sorted(path for path in found if path.suffix in (".manifest", ".releases"))[:MAX_TARGETS]

    async def _look_at(
        self, records: Sequence[Path], listener: Session, *, whole: bool = False
    ) -> list[Path]:
        """Those that there was something to tell of. `whole`: there are no others."""
        async with self._looking:
            if listener is not self._listener:
                self._listener = listener
                self._told.clear()
            if whole:
                for gone in (self._memory.keys() | self._told.keys() | self._counts.keys()) - set(records):
                    self._memory.pop(gone, None)
                    self._told.pop(gone, None)
                    self._counts.pop(gone, None)
            told = [record for record in records if await self._look_at_one(record, listener)]
            if self._looked is not None:
                await self._looked(sum(self._counts.values()))
            return told

    async def _look_at_one(self, record: Path, listener: Session) -> bool:
        from agent.compare import Remembered
        from agent.release_drift import compare_any

        memory = self._memory.setdefault(record, Remembered())
        try:
            found = await compare_any(record, rules=self._rules, state_dir=self._state_dir, memory=memory)
        except (TrueupError, OSError) as error:
            _log.debug("a target cannot be compared: %s", line_of(error))
            return False
        if found is None:
            return False
        self._counts[record] = found.count
        if found.digest == self._told.get(record, b""):
            return False
        report = DriftReport(
            project=found.project, target_path=found.target, digest=found.digest, count=found.count
        )
        try:
            await listener.control.send(report)
        except LinkLost:
            return False
        self._told[record] = found.digest
        if found.count:
            fields = {"target": found.target, "project": found.project, "entries": found.count}
            _log.info("drift", extra={"fields": fields})
        return True
