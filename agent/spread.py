"""Encryption on more than one core: in worker threads, while several connections send bulk data at once.

OpenSSL works without Python's lock, so that threads of one process are enough. A turn through a thread costs
some 50 us, which a single connection would only lose: it encrypts where it is.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

LARGE = 256 * 1024
"""Bytes of a piece from which on a turn through a thread costs little of what encrypting it does."""

Result = TypeVar("Result")


class Spread:
    """Shared by connections: how many of them send large pieces, and as many threads as there are cores."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._sending = 0
        # One more than cores, so that the next one is ready when a thread is done.
        self.limiter = trio.CapacityLimiter(cores + 1)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """For the time in which one connection sends a large piece."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    @property
    def pays(self) -> bool:
        """Whether a thread is worth its turn."""
        return self._cores > 1 and self._sending > 1

    async def run(self, work: Callable[[], Result]) -> Result:
        """In a thread, once one is free. What has begun comes to its end, even if the caller is cancelled."""
        return await trio.to_thread.run_sync(work, limiter=self.limiter)


SHARED = Spread(len(os.sched_getaffinity(0)))
