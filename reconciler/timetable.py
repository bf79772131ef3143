"""When the next pass of a running primary is due, and what it concerns. Pure: times are given.

They are those of a monotonic clock: when somebody sets the machine's clock, nothing comes early or late.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from reconciler.pass_requests import EVERYTHING, NOTHING, PassRequest

if TYPE_CHECKING:
    from agent.backoff import Backoff

JITTER: Final = 0.1
"""Share of the interval by which a pass may come earlier or later: primaries spread out."""

SPACING: Final = 1.0
"""Seconds between the end of a pass and the next one, however many ask."""

QUIET: Final = 1.0
"""Seconds without another request after which a burst of them counts as over."""

LONGEST_BURST: Final = 30.0
"""Seconds after its first request at which a burst is acted on though it goes on."""

FIRST_BACKOFF: Final = 5.0
"""Seconds until the next pass after one that could not be made; doubled each time, up to the interval."""


class Timetable:
    """`draw` gives numbers from 0 to 1, `backoff` the pauses while no pass can be made."""

    def __init__(self, *, interval: float, draw: Callable[[], float], backoff: "Backoff") -> None:
        self._interval = interval
        self._draw = draw
        self._backoff = backoff
        self._wanted = NOTHING
        self._first = self._last = inf
        """When the first and the last of those asked whose requests no pass has taken yet."""
        self._everything_at = -inf
        """When a pass over everything is due, whoever asks."""
        self._earliest = -inf

    def ask(self, request: PassRequest, now: float) -> None:
        self._wanted |= request
        self._first, self._last = min(self._first, now), now

    @property
    def is_asked(self) -> bool:
        return self._first < inf

    def due_at(self, retry_at: float = inf) -> float:
        """`retry_at`: when something that failed is to be tried again.

        Whoever asks while nothing is going on is served at once. Requests that come in a burst are served
        together, once it is over: an endless one makes a pass now and then.
        """
        asked = self._first
        if self._first < self._earliest:
            asked = min(self._first + LONGEST_BURST, self._last + QUIET)
        return max(self._earliest, min(asked, self._everything_at, retry_at))

    def take(self, now: float, retry_at: float = inf) -> PassRequest:
        """A pass begins: what it concerns. Whoever asks from here on may have seen something newer."""
        request = self._wanted
        if min(self._everything_at, retry_at) <= now or not self.is_asked:
            request |= EVERYTHING
        self._wanted, self._first, self._last = NOTHING, inf, inf
        if request.everything:
            self._everything_at = self._next_interval(now)
        return request

    def applies(self, now: float) -> None:
        """The pass has looked, and begins to apply: another one may be due before it has ended."""
        self._earliest = now + SPACING

    def ended(self, request: PassRequest, now: float, *, let_go: bool = False) -> None:
        """A pass was made. One that concerned a part only does not put off the next one over everything.

        `let_go`: another one was due before it had begun all its steps, which is for that one to do.
        """
        self._backoff.reset()
        if let_go:
            self._wanted |= request
        if request.everything:
            self._everything_at = self._next_interval(now)
        if not let_go:
            self._earliest = now + SPACING

    def failed(self, request: PassRequest, now: float) -> float:
        """No pass could be made: the next one is asked the same. Gives the seconds until then."""
        pause = self._backoff.next()
        self._wanted |= request
        self._everything_at = now + pause
        self._earliest = now + min(SPACING, pause)
        return pause

    def _next_interval(self, now: float) -> float:
        return now + self._interval * (1 + JITTER * (2 * self._draw() - 1))
