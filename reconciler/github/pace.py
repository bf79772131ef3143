"""GitHub's rule for writes: one after the other, about one a second (its best practices for the REST API)."""

import trio

INTERVAL = 1.0
"""Seconds between the starts of two writes."""


class Pace:
    """Shared by all that write to GitHub in one process."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._lock = trio.Lock()
        self._places: dict[str, trio.Lock] = {}
        self._next = 0.0

    def alone(self, place: str) -> trio.Lock:
        """Held by whoever works at a place: one after the other."""
        return self._places.setdefault(place, trio.Lock())

    async def wait(self) -> None:
        """Until the next write may begin."""
        async with self._lock:
            await trio.sleep_until(max(self._next, trio.current_time()))
            self._next = trio.current_time() + self._interval
