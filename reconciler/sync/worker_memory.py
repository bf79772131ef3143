"""Memory of a worker process that sends bulk data: what was just mapped or freed is kept for what comes next.

Mapping a frame for each agent that is sent it, and page faults for each buffer, took a worker half of its
time. Once nothing large was sent for a while, all goes back.
"""

import mmap
import os
from collections import OrderedDict
from contextlib import ExitStack
from typing import Final

import trio

from agent.libc import bulk_memory

MAPPED: Final = 16 * 1024 * 1024
"""Bytes of frames that stay mapped. They are the primary's memory, of which this holds on to no more."""

REST: Final = 5.0
"""Seconds without bulk data after which memory goes back."""


class BulkMemory:
    def __init__(self) -> None:
        self._maps: OrderedDict[tuple[int, int], mmap.mmap] = OrderedDict()
        self._mapped = 0
        self._in_use = False
        self._begun = trio.Event()

    async def run(self) -> None:
        """Gives memory back after each time of use; for ever."""
        while True:
            await self._begun.wait()
            self._begun = trio.Event()
            with ExitStack() as stack:
                stack.enter_context(bulk_memory())
                self._in_use = True
                while self._in_use:
                    self._in_use = False
                    await trio.sleep(REST)
                self._maps.clear()
                self._mapped = 0

    def view(self, fd: int, offset: int, size: int) -> memoryview:
        """Bytes of a file in memory; `fd` stays the caller's. Raises OSError, ValueError."""
        if not self._in_use:
            self._in_use = True
            self._begun.set()
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        mapped = self._maps.get(key)
        if mapped is None:
            mapped = self._maps[key] = _map(fd, status.st_size)
            self._mapped += status.st_size
            while self._mapped > MAPPED and len(self._maps) > 1:
                # Gone with the last view of it.
                self._mapped -= len(self._maps.popitem(last=False)[1])
        else:
            self._maps.move_to_end(key)
        return memoryview(mapped)[offset : offset + size]


def _map(fd: int, size: int) -> mmap.mmap:
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    return mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ)
