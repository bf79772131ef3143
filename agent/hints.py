"""When to look at what may have changed: soon, and the more seldom the more often it was in vain. Pure."""

from collections.abc import Collection, Iterable
from math import inf
from pathlib import Path


class Hints:
    """All in seconds: `quiet` from a hint to the look, `pause` from that to the next one of the same target,
    which doubles up to `longest` while looks find nothing new. Times are of one clock."""

    def __init__(self, *, quiet: float, pause: float, longest: float) -> None:
        self._quiet = quiet
        self._pause = pause
        self._longest = longest
        self._due: dict[Path, float] = {}
        self._pauses: dict[Path, float] = {}
        self._not_before: dict[Path, float] = {}
        self._placed: set[Path] = set()
        """By tasks since they were looked at."""

    @property
    def due_at(self) -> float:
        """When the next look is due; infinite where none is."""
        return min(self._due.values(), default=inf)

    def add(self, targets: Iterable[Path], now: float) -> None:
        """These may have changed. The first hint counts: more of them must not put the look off."""
        for target in targets:
            self._due.setdefault(target, max(now + self._quiet, self._not_before.get(target, 0.0)))

    def placed(self, targets: Iterable[Path], now: float) -> None:
        """A task has changed these: that there is nothing to tell then is no reason to come later."""
        for target in targets:
            self._placed.add(target)
            self._pauses.pop(target, None)
            self._not_before.pop(target, None)
            self._due[target] = min(self._due.get(target, inf), now + self._quiet)

    def keep(self, targets: Collection[Path]) -> None:
        """There are no others; what is known of those that left goes, and one that comes back begins anew."""
        for known in (self._due, self._pauses, self._not_before):
            for gone in known.keys() - set(targets):
                del known[gone]
        self._placed.intersection_update(targets)

    def due(self, now: float) -> set[Path]:
        """What is to be looked at by now."""
        return {target for target, at in self._due.items() if at <= now}

    def put_off(self, targets: Iterable[Path], now: float) -> None:
        """Nobody is there to be told at the moment."""
        self._due.update(dict.fromkeys(targets, now + self._pause))

    def looked(self, targets: Collection[Path], told: Collection[Path], now: float) -> None:
        """A look at them ended; there was something new to tell of those in `told`."""
        for target in targets:
            self._due.pop(target, None)
            if target in self._placed and target not in told:
                continue
            before = self._pauses.get(target)
            pause = self._pause if target in told or before is None else min(2 * before, self._longest)
            self._pauses[target] = pause
            self._not_before[target] = now + pause
        self._placed.difference_update(targets)
        # What was quiet for long begins anew, and what is gone is forgotten.
        for target in [each for each, at in self._not_before.items() if at + self._longest < now]:
            del self._not_before[target]
            self._pauses.pop(target, None)
