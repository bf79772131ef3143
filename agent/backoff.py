"""How long to wait before the next attempt: exponential with jitter, so that a fleet spreads out."""

import random
from collections.abc import Callable

FIRST = 0.5
LONGEST = 30.0


class Backoff:
    """Seconds to wait, doubling from `first` to `longest`, each drawn from the upper half of its step."""

    def __init__(
        self,
        *,
        first: float = FIRST,
        longest: float = LONGEST,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._draw = draw
        self._attempts = 0

    def next(self) -> float:
        # The exponent is bounded, so that no number of attempts overflows.
        step = min(self._longest, self._first * 2.0 ** min(self._attempts, 60))
        self._attempts += 1
        return step * (0.5 + 0.5 * self._draw())

    def reset(self) -> None:
        self._attempts = 0
