"""How often somebody may do something: a store of permits for each of them, which fills up again. Pure."""

from collections import OrderedDict
from collections.abc import Hashable

MAX_KEYS = 10_000
"""Stores that are remembered. Who was forgotten begins with a full one: whatever must hold for all of them
together needs a store of its own."""

TINY = 1e-6
"""Seconds that are none: what sums of fractions are apart."""


class Rates:
    """`burst` permits at once, and one more each `every` seconds. Times are of a clock that does not jump."""

    def __init__(self, *, burst: int, every: float, most: int = MAX_KEYS) -> None:
        self._burst = burst
        self._every = every
        self._most = most
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        """When each store is full again; the one that was used longest ago is first."""

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until there is a permit; 0: there is one."""
        missing = max(0.0, self._full_at.get(key, now) - now)
        wait = missing - (self._burst - 1) * self._every
        return wait if wait > TINY else 0.0

    def take(self, key: Hashable, now: float) -> float:
        """Takes a permit if there is one, and says 0; else the seconds until there is."""
        wait = self.wait(key, now)
        if wait == 0.0:
            self._full_at[key] = max(now, self._full_at.get(key, now)) + self._every
            self._full_at.move_to_end(key)
            while len(self._full_at) > self._most:
                self._full_at.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._full_at)
