"""A bounded number of places; whoever came last is first when one comes free.

Where more come than can be served, those who came first have waited so long that they are about to give up:
serving them first would be work for nothing. Those who came just now have all their time.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class NoPlace(Exception):
    """More wait than may, and others came later."""


class Places:
    """`most` places, and room for `waiting` who wait for one."""

    def __init__(self, most: int, *, waiting: int) -> None:
        self._most = most
        self._room = waiting
        self._taken = 0
        self._waiting: deque[_Turn] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Holds a place for the time of the block. Raises NoPlace; deadlines are the caller's."""
        if self._taken < self._most:
            self._taken += 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self) -> None:
        turn = _Turn()
        self._waiting.append(turn)
        if len(self._waiting) > self._room:
            self._waiting.popleft().over.set()
        try:
            await turn.over.wait()
        except BaseException:
            if turn.has_place:
                self._give_back()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        if not turn.has_place:
            raise NoPlace

    def _give_back(self) -> None:
        if self._waiting:
            turn = self._waiting.pop()
            turn.has_place = True
            turn.over.set()
        else:
            self._taken -= 1


class _Turn:
    def __init__(self) -> None:
        self.over = trio.Event()
        self.has_place = False
