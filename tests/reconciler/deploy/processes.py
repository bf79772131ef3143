"""What tests of child processes share: whether one is still there, and waiting for it to go."""

import os
import select
from pathlib import Path

import trio

PATIENCE_MS = 60_000
"""Only a process that is never going to end makes a test wait this long."""


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def wait_gone(pid: int) -> bool:
    """True once the process has ended; a kill is not instantaneous."""
    return await trio.to_thread.run_sync(goes, pid)


def goes(pid: int) -> bool:
    """As `wait_gone`, for tests that need no trio. Blocks."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(PATIENCE_MS))
    finally:
        os.close(pidfd)
