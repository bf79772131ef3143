"""Tells the primary, unasked, of targets that are no longer as a task left them.

All targets are looked at in turn, at an interval with jitter, and only while somebody is there to be told.
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

_log = logging.getLogger("trueup.agent")


class DriftWatch:
    """`interval` in seconds, 0 for never; `draw` gives numbers from 0 to 1. After each look `looked` is told
    how many entries differ in all."""

    def __init__(
        self,
        rules: AgentRules,
        state_dir: Path,
        *,
        interval: float = INTERVAL,
        draw: Callable[[], float] = random.random,
        looked: Callable[[int], Awaitable[None]] | None = None,
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

    async def run(self, session: Callable[[], Session | None]) -> None:
        """Look and tell, for ever. `session`: the one that stands now."""
        if self._interval <= 0:
            return
        await trio.sleep(self._interval * self._draw())
        while True:
            listener = session()
            if listener is not None and listener.protocol >= NOTICES_SINCE:
                await self.look(listener)
            await trio.sleep(self._interval * (1 + JITTER * (2 * self._draw() - 1)))

    async def look(self, listener: Session) -> None:
        """Look at all targets once, and tell of those that differ from what was told."""
        if listener is not self._listener:
            self._listener = listener
            self._told.clear()
        records = await trio.to_thread.run_sync(self._records)
        for gone in (self._memory.keys() | self._told.keys() | self._counts.keys()) - set(records):
            self._memory.pop(gone, None)
            self._told.pop(gone, None)
            self._counts.pop(gone, None)
        await self._look_at(records, listener)
        if self._looked is not None:
            await self._looked(sum(self._counts.values()))

    def _records(self) -> list[Path]:
        found = (self._state_dir / "targets").glob("*")
        return sorted(path for path in found if path.suffix in (".manifest", ".releases"))[:MAX_TARGETS]

    async def _look_at(self, records: Sequence[Path], listener: Session) -> None:
        from agent.compare import Remembered
        from agent.release_drift import compare_any

        for record in records:
            memory = self._memory.setdefault(record, Remembered())
            try:
                found = await compare_any(record, rules=self._rules, state_dir=self._state_dir, memory=memory)
            except (TrueupError, OSError) as error:
                _log.debug("a target cannot be compared: %s", line_of(error))
                continue
            if found is None:
                continue
            self._counts[record] = found.count
            if found.digest == self._told.get(record, b""):
                continue
            report = DriftReport(
                project=found.project, target_path=found.target, digest=found.digest, count=found.count
            )
            try:
                await listener.control.send(report)
            except LinkLost:
                return
            self._told[record] = found.digest
            if found.count:
                fields = {"target": found.target, "project": found.project, "entries": found.count}
                _log.info("drift", extra={"fields": fields})
