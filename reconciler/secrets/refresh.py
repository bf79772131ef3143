"""Fetches lists again before they expire, so that who reads them does not wait and a change is seen early."""

import random
from collections.abc import Callable
from typing import NoReturn, Protocol
from weakref import WeakKeyDictionary

import trio

from reconciler.secrets.cache import CacheEntry, Failed, Fetched, SecretCache
from reconciler.spec.model import SecretSource

SHARE_OF_TTL = 0.8
"""A list is fetched again at this share of its `cache_ttl` at the latest."""

JITTER = 0.2
"""At most this share of the interval is taken off at random: lists that were fetched together spread out."""

IDLE = 24 * 3600.0
"""Seconds without a reader after which a list is left to expire."""

OnChange = Callable[[str, str], None]
"""Told the source and the environment whose values are others than before."""


def nobody(_source: str, _environment: str) -> None:
    """Nothing is done about a change; the next read has the new values."""


class Fetching(Protocol):
    """What the store lends to the refresher."""

    def spec_of(self, source: str, /) -> SecretSource | None: ...

    async def fetch(self, entry: CacheEntry, source: str, environment: str, /) -> Fetched | Failed: ...


def interval_of(source: SecretSource) -> float | None:
    """Seconds from one fetch to the next one ahead of need; None: there is none."""
    if source.cache_ttl <= 0 or source.refresh_interval <= 0:
        return None
    return min(source.refresh_interval, SHARE_OF_TTL * source.cache_ttl)


class Refresher:
    """`draw` gives numbers from 0 to 1, one for each fetched list."""

    def __init__(
        self,
        cache: SecretCache,
        store: Fetching,
        on_change: OnChange,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._store = store
        self._on_change = on_change
        self._draw = draw
        self._drawn: WeakKeyDictionary[CacheEntry, tuple[Fetched, float]] = WeakKeyDictionary()
        self._busy: set[CacheEntry] = set()

    async def run(self) -> NoReturn:
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                next_due = float("inf")
                for entry in self._cache.entries.values():
                    if entry in self._busy:
                        continue
                    due = self._due(entry, now)
                    if due > now:
                        next_due = min(next_due, due)
                    else:
                        self._busy.add(entry)
                        nursery.start_soon(self._refresh, entry)
                with trio.move_on_at(next_due):
                    await self._cache.changed.park()

    def _due(self, entry: CacheEntry, now: float) -> float:
        """When to fetch again; never before the time until which a failure stands."""
        intervals = [interval_of(spec) for _, spec in self._readers(entry, now)]
        interval = min((one for one in intervals if one is not None), default=None)
        good = entry.last_good
        if interval is None or (good is None and entry.last_failure is None):
            return float("inf")  # nobody needs it, or the first call for it is under way
        if good is None:
            return entry.retry_at
        return max(good.at + interval * (1 - JITTER * self._fraction(entry, good)), entry.retry_at)

    def _fraction(self, entry: CacheEntry, good: Fetched) -> float:
        known = self._drawn.get(entry)
        if known is None or known[0] is not good:
            known = self._drawn[entry] = (good, self._draw())
        return known[1]

    def _readers(self, entry: CacheEntry, now: float) -> list[tuple[str, SecretSource]]:
        """The environments and sources for which it was read lately."""
        recent = [reader for reader, last in entry.readers.items() if now - last <= IDLE]
        found = [(environment, self._store.spec_of(source)) for source, environment in recent]
        return [(environment, spec) for environment, spec in found if spec is not None]

    async def _refresh(self, entry: CacheEntry) -> None:
        now = trio.current_time()
        readers = self._readers(entry, now)
        before = entry.last_good
        environment, spec = readers[-1]
        try:
            outcome = await self._store.fetch(entry, spec.name, environment)
        finally:
            self._busy.discard(entry)
            self._cache.changed.unpark_all()
        if isinstance(outcome, Failed):
            return
        for environment, spec in readers:
            had = before is not None and now - before.at <= spec.max_stale and before.values
            if had != outcome.values:
                self._on_change(spec.name, environment)
