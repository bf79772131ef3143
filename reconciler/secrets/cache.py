"""Fetched lists in memory: one entry for each question, and one call at a time for each entry."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import trio

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.values import Secret

FIRST_BACKOFF = 1.0
MAX_BACKOFF = 60.0
"""Seconds during which a failure is the answer without a new call; doubled with each one in a row."""

Question = tuple[str, object]
"""The kind of a source, and what decides its answer: `Source.cache_key`. Hashable."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One whole answer. `at` is in `trio.current_time` seconds."""

    values: Mapping[str, Secret] = field(repr=False)
    at: float
    retrieved_at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """One failed call, as data: an error that is kept would keep the frames it went through."""

    text: str
    reason: str
    down: bool
    """Nothing was learnt, so that an old value may serve. Otherwise the source said no."""
    retry_after: float | None = None
    """Seconds."""

    @property
    def kind(self) -> str:
        """One stable word: who must act is in it."""
        if self.reason != SecretSourceUnavailable.reason:
            return self.reason
        return "Down" if self.down else "Refused"


@dataclass(slots=True)
class _Flight:
    number: int
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Fetched | Failed | None = None
    """None: whoever made the call was cancelled."""


class CacheEntry:
    """The answer to one question, and the call that is under way for it.

    `last_good` outlives failures; whether it may still serve is for the caller to decide.
    """

    def __init__(self) -> None:
        self.last_good: Fetched | None = None
        self.last_failure: Failed | None = None
        self.last_success: datetime | None = None
        """UTC. It is for people, and so a cleared cache keeps it."""
        self.readers: dict[tuple[str, str], float] = {}
        """When which source was last read from here for which environment, in `trio.current_time` seconds."""
        self.retry_at = 0.0
        """Before this time a failure is the answer."""
        self._failures = 0
        self._flight: _Flight | None = None
        self._number = 0

    def clear(self) -> None:
        """Forget everything; a call that is under way will not be kept either."""
        self.last_good = self.last_failure = None
        self._failures, self.retry_at = 0, 0.0
        self._flight = None

    def backing_off(self) -> Failed | None:
        """The failure that is still the answer, where it is too early for another call."""
        return self.last_failure if trio.current_time() < self.retry_at else None

    async def fetch(
        self, call: Callable[[], Awaitable[Fetched | Failed]], *, newer: bool
    ) -> Fetched | Failed:
        """Join the call that is under way, or make one. `newer`: one that began before will not do."""
        began = self._number
        while True:
            flight = self._flight
            if flight is None:
                return await self._lead(call)
            await flight.done.wait()
            if flight.outcome is not None and not (newer and flight.number <= began):
                return flight.outcome

    async def _lead(self, call: Callable[[], Awaitable[Fetched | Failed]]) -> Fetched | Failed:
        self._number += 1
        flight = self._flight = _Flight(self._number)
        try:
            outcome = flight.outcome = await call()
            if self._flight is flight:
                self._keep(outcome)
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()
        return outcome

    def _keep(self, outcome: Fetched | Failed) -> None:
        if isinstance(outcome, Fetched):
            self.last_good, self.last_failure = outcome, None
            self.last_success = outcome.retrieved_at
            self._failures, self.retry_at = 0, 0.0
            return
        self.last_failure = outcome
        backoff = min(FIRST_BACKOFF * 2**self._failures, MAX_BACKOFF)
        self._failures += 1
        self.retry_at = trio.current_time() + max(backoff, outcome.retry_after or 0.0)


class SecretCache:
    """All entries of a process. They outlive a change of the spec: one in an outage must forget nothing."""

    def __init__(self) -> None:
        self.entries: dict[Question, CacheEntry] = {}
        self.environments: set[str] = set()
        """All for which anything was read."""
        self.changed = trio.lowlevel.ParkingLot()
        """Who waits here goes on when there is something new to keep fresh."""

    def entry(self, question: Question) -> CacheEntry:
        entry = self.entries.get(question)
        if entry is None:
            entry = self.entries[question] = CacheEntry()
        return entry

    def keep_only(self, questions: Collection[Question]) -> None:
        """Forget what nothing can ask any more. Who read the rest is not known under a new spec."""
        self.entries = {question: entry for question, entry in self.entries.items() if question in questions}
        for entry in self.entries.values():
            entry.readers.clear()
