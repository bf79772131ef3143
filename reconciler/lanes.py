"""A limit of steps side by side that a few hanging ones do not use up.

A step that has run much longer than those before it gives its place back, once somebody waits for one, and
goes on in a slow lane. That lane has a bound too: when it is full, a step keeps its place.
"""

import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Final

import trio

SLOW_PLACES: Final = 8
"""Places of the slow lane, for each of the normal one."""

KNOWN: Final = 5
"""Steps of a kind that must have ended before it is known how long one takes."""

REMEMBERED: Final = 100
"""Of the steps of a kind that ended, the newest count."""

MUCH_LONGER: Final = 2.0
"""Times what three of four steps took at most. A quarter of them may hang, and the others still set it."""

SHORTEST: Final = 0.01
"""Seconds that every step may take: below, it is the machine that is measured and not the step."""

FIRST: Final = 5.0
"""Seconds until the first step gives its place back while it is not known how long they take. The next
needs twice that, and so on: one that gets through tells how long they take, and where all of them take long
the limit stays one."""


class _Lengths:
    """How long the steps of one kind take."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=REMEMBERED)
        self._guesses = 0
        self.patience = FIRST
        """Seconds after which a step has run much longer than the others."""

    def ended(self, seconds: float) -> None:
        self._newest.append(seconds)
        if len(self._newest) >= KNOWN:
            self.patience = max(SHORTEST, MUCH_LONGER * sorted(self._newest)[len(self._newest) * 3 // 4])

    def gave_way(self) -> None:
        if len(self._newest) < KNOWN:
            self._guesses += 1
            self.patience = FIRST * 2**self._guesses


@dataclass(slots=True, eq=False)
class _Running:
    since: float
    lengths: _Lengths
    is_slow: bool = False

    @property
    def overdue_at(self) -> float:
        return self.since + self.lengths.patience


@dataclass(slots=True, order=True)
class _Waiter:
    is_last: bool
    number: int
    lengths: _Lengths = field(compare=False)
    woken: trio.Event = field(compare=False, default_factory=trio.Event)
    running: _Running | None = field(compare=False, default=None)


class Lane:
    """At most `places` steps side by side, and those that hang besides."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._normal: set[_Running] = set()
        self._slow = 0
        self._waiting: list[_Waiter] = []
        """A heap. The first of it watches for a step that is overdue."""
        self._lengths: dict[str, _Lengths] = {}
        self._number = 0

    @asynccontextmanager
    async def place(self, kind: str, *, last: bool = False) -> AsyncIterator[None]:
        """Until a step may begin, and for as long as it runs.

        `kind`: steps of one kind are compared with each other. `last`: all others that wait go first.
        """
        running = await self._enter(kind, last=last)
        try:
            yield
        finally:
            self._leave(running)

    async def _enter(self, kind: str, *, last: bool) -> _Running:
        self._number += 1
        waiter = _Waiter(last, self._number, self._lengths.setdefault(kind, _Lengths()))
        heapq.heappush(self._waiting, waiter)
        try:
            # Who is ready at the same moment is in the queue before the first goes.
            await trio.lowlevel.checkpoint()
            self._admit()
            while waiter.running is None:
                waiter.woken = trio.Event()
                watches = self._waiting[0] is waiter
                with trio.move_on_at(self._next_overdue() if watches else inf):
                    await waiter.woken.wait()
                self._admit()
            return waiter.running
        except trio.Cancelled:
            if waiter.running is not None:
                self._leave(waiter.running)
            else:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
                self._admit()
            raise

    def _leave(self, running: _Running) -> None:
        running.lengths.ended(trio.current_time() - running.since)
        if running.is_slow:
            self._slow -= 1
        else:
            self._normal.remove(running)
        self._admit()

    def _admit(self) -> None:
        """Let in whom there is room for; the first of those who are left looks again when to wake up."""
        now = trio.current_time()
        while self._waiting and (len(self._normal) < self.places or self._make_room(now)):
            waiter = heapq.heappop(self._waiting)
            waiter.running = _Running(now, waiter.lengths)
            self._normal.add(waiter.running)
            waiter.woken.set()
        if self._waiting:
            self._waiting[0].woken.set()

    def _make_room(self, now: float) -> bool:
        if self._slow >= SLOW_PLACES * self.places:
            return False
        longest = min(self._normal, key=lambda running: running.overdue_at)
        if longest.overdue_at > now:
            return False
        longest.is_slow = True
        longest.lengths.gave_way()
        self._normal.remove(longest)
        self._slow += 1
        return True

    def _next_overdue(self) -> float:
        if self._slow >= SLOW_PLACES * self.places:
            return inf
        return min(running.overdue_at for running in self._normal)


class Place:
    """What a step holds of the limits while it is at work. It gives it back while it only waits."""

    def __init__(self, enter: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        self._enter = enter
        self._held = AsyncExitStack()

    async def take(self) -> None:
        """Once there is room: who waits already goes first."""
        await self._held.enter_async_context(self._enter())

    async def give_back(self) -> None:
        await self._held.aclose()


class Lanes:
    """The limits of a primary. They hold over all passes: steps of several may run side by side."""

    def __init__(self) -> None:
        self.tasks = Lane(1)
        self.others = Lane(1)
        self._projects: dict[str, trio.CapacityLimiter] = {}

    def set(self, *, tasks: int, others: int) -> None:
        """What the spec says now; what runs already goes on."""
        self.tasks.places, self.others.places = tasks, others

    def project(self, id: str, places: int) -> trio.CapacityLimiter:
        """The limit of targets of one project."""
        limiter = self._projects.setdefault(id, trio.CapacityLimiter(places))
        limiter.total_tokens = places
        return limiter
