"""Fetched lists: one entry for each question, one call at a time for each, and what is kept on disk of it."""

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import trio

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.disk_cache import DiskCache
from reconciler.secrets.kinds import KEPT_ON_DISK
from reconciler.secrets.known import KNOWN
from reconciler.secrets.stored import Stored, question_bytes
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

    def __post_init__(self) -> None:
        # Every answer comes by here, whoever asked for it, from a source or from the disk.
        KNOWN.learn(self.values.values())


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

    def __init__(self, disk: DiskCache | None = None, question: bytes = b"") -> None:
        """`disk`: where the answer is kept as well, under `question`."""
        self._disk = disk
        self._question = question
        self.loaded = disk is None
        """What an earlier process kept has been looked for."""
        self._mark: bytes | None = None
        """Of the credentials, once they are known."""
        self._loading = trio.Lock()
        self._clears = 0
        self.last_good: Fetched | None = None
        self.last_failure: Failed | None = None
        self.last_success: datetime | None = None
        """UTC. It is for people, and so a cleared cache keeps it."""
        self.readers: dict[tuple[str, str], float] = {}
        """When which source was last read from here for which environment, in `trio.current_time` seconds."""
        self.version: Hashable | None = None
        """What a source that can tell changes (`source.Versioned`) said before its last call ended."""
        self.retry_at = 0.0
        """Before this time a failure is the answer."""
        self._failures = 0
        self._flight: _Flight | None = None
        self._number = 0

    @property
    def on_disk(self) -> bool:
        return self._disk is not None

    def identify(self, credentials: Sequence[Secret] | None) -> None:
        """Say who asks, before `load` and with each answer. None: nobody knows; the disk is left alone."""
        self._mark = None
        if self._disk is not None and credentials is not None:
            self._mark = self._disk.mark(credentials)

    async def load(self) -> None:
        """Take over what an earlier process kept for the same credentials, once."""
        async with self._loading:
            if self._disk is None or self._mark is None or self.loaded:
                return
            now, clears = trio.current_time(), self._clears
            kept = await trio.to_thread.run_sync(self._disk.load, self._question, self._mark)
            self.loaded = True
            if kept is not None and self._clears == clears:
                stored, age = kept
                self.last_good = Fetched(stored.values, now - age, stored.retrieved_at)
                self.last_success = stored.retrieved_at

    def clear(self) -> bool:
        """Forget everything; a call that is under way will not be kept either. Whether there was a list."""
        self.loaded = True
        self._clears += 1
        kept = self._disk is not None and self._disk.drop(self._question)
        had = self.last_good is not None or kept
        self.last_good = self.last_failure = None
        self._failures, self.retry_at = 0, 0.0
        self._flight = None
        return had

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
                if isinstance(outcome, Fetched) and self._disk is not None and self._mark is not None:
                    await self._save(outcome, self._disk, self._mark)
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()
        return outcome

    async def _save(self, fetched: Fetched, disk: DiskCache, mark: bytes) -> None:
        age = trio.current_time() - fetched.at
        stored = Stored(fetched.values, fetched.retrieved_at, age, disk.clocks())
        await trio.to_thread.run_sync(disk.save, self._question, mark, stored, disk.drops(self._question))

    def _keep(self, outcome: Fetched | Failed) -> None:
        if isinstance(outcome, Fetched):
            self.last_good, self.last_failure = outcome, None
            self.loaded = True  # what is on disk is older
            self.last_success = outcome.retrieved_at
            self._failures, self.retry_at = 0, 0.0
            return
        self.last_failure = outcome
        backoff = min(FIRST_BACKOFF * 2**self._failures, MAX_BACKOFF)
        self._failures += 1
        self.retry_at = trio.current_time() + max(backoff, outcome.retry_after or 0.0)


class SecretCache:
    """All entries of a process. They outlive a change of the spec: one in an outage must forget nothing."""

    def __init__(self, disk: DiskCache | None = None) -> None:
        self._disk = disk
        self.entries: dict[Question, CacheEntry] = {}
        self.environments: set[str] = set()
        """All for which anything was read."""
        self.changed = trio.lowlevel.ParkingLot()
        """Who waits here goes on when there is something new to keep fresh."""

    def entry(self, question: Question) -> CacheEntry:
        entry = self.entries.get(question)
        if entry is None:
            on_disk = self._disk is not None and question[0] in KEPT_ON_DISK
            entry = CacheEntry(self._disk, question_bytes(*question)) if on_disk else CacheEntry()
            self.entries[question] = entry
        return entry

    def serve(self, questions: Collection[Question], max_age: float) -> None:
        """Begin with a new spec: forget what nothing can ask any more, and on disk what is older than any of
        its sources allows. Who read the rest is not known any more."""
        self.entries = {question: entry for question, entry in self.entries.items() if question in questions}
        for entry in self.entries.values():
            entry.readers.clear()
        if self._disk is not None:
            self._disk.max_age = max_age

    def look_again(self) -> None:
        """Files may be others than before, those with credentials and keys included: whoever reads one is
        asked anew, and no failure is waited out. What is there still serves where that fails."""
        for entry in self.entries.values():
            entry.version, entry.retry_at = None, 0.0

    def clear(self, questions: Collection[Question] | None) -> int:
        """Forget the answers to these questions, or to all; says how many there were."""
        chosen = self.entries.keys() if questions is None else questions
        dropped = sum(self.entry(question).clear() for question in list(chosen))
        if questions is None and self._disk is not None:
            dropped += self._disk.drop_all()
        return dropped
