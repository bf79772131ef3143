"""Locks on files and directories that end with the process that holds them.

`flock` belongs to an open file: two openers exclude each other in one process as in two, and the kernel
lets go when the last copy of the descriptor is closed, however the process died.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import GitUnavailable
from reconciler.git.failures import on_disk

_POLL: Final = 0.02


@asynccontextmanager
async def locked(path: Path, *, wait: float) -> AsyncIterator[int]:
    """Hold the lock of the file `path`, made when missing; gives its descriptor, for children to share.

    Raises GitUnavailable when another process holds it for longer than `wait` seconds.
    """
    with on_disk(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        give_up = trio.current_time() + wait
        # A blocking flock in a thread could not be cancelled.
        while not try_lock(descriptor):
            if trio.current_time() >= give_up:
                raise GitUnavailable(
                    f"{path}: another process has held this lock for {wait:g} s",
                    hint="look for a second trueup or a stuck git",
                )
            await trio.sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or directory if nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
