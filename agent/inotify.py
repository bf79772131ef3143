"""What the kernel tells of changes in directories, by inotify: inotify(7)."""

import os
import struct
from typing import Final, NamedTuple

import trio

from agent.libc import inotify_add, inotify_begin, inotify_remove

MODIFY: Final = 0x2
ATTRIBUTES: Final = 0x4
MOVED: Final = 0x40 | 0x80
CREATED: Final = 0x100
DELETED: Final = 0x200 | 0x400
MOVED_ITSELF: Final = 0x800
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
_ONLY_DIRECTORIES: Final = 0x0100_0000

_WATCHED: Final = MODIFY | ATTRIBUTES | MOVED | CREATED | DELETED | MOVED_ITSELF | _ONLY_DIRECTORIES

_HEAD: Final = struct.Struct("=iIII")
_READ: Final = 64 * 1024


class Notice(NamedTuple):
    """`watch` is -1 where notices were lost, which `mask` says."""

    watch: int
    mask: int


def notices(data: bytes) -> list[Notice]:
    """What one read gave, without the names. Pure."""
    found: list[Notice] = []
    at = 0
    while at + _HEAD.size <= len(data):
        watch, mask, _cookie, length = _HEAD.unpack_from(data, at)
        found.append(Notice(watch, mask))
        at += _HEAD.size + length
    return found


class Inotify:
    """Raises OSError where the system offers none, or no more."""

    def __init__(self) -> None:
        self._fd = inotify_begin()

    def close(self) -> None:
        os.close(self._fd)

    def add(self, folder_fd: int) -> int:
        """Watches the directory of a descriptor, whatever leads to it now; the same number for the same one.
        Raises OSError, with ENOSPC where the user has no watches left."""
        return inotify_add(self._fd, f"/proc/self/fd/{folder_fd}", _WATCHED)

    def remove(self, watch: int) -> None:
        """Harmless where the directory is gone, and its watch with it."""
        inotify_remove(self._fd, watch)

    async def wait(self) -> list[Notice]:
        """Waits until there are some; no longer than that, and none is lost where this is cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return notices(os.read(self._fd, _READ))
            except BlockingIOError:
                continue
