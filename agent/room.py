"""Whether what a task writes will fit on the file system of its target."""

import os
from collections.abc import Sequence

from agent.blocks import block_count, block_digest, block_length, zero_bytes
from agent.changes import Write
from agent.failures import TaskFailed
from agent.reuse import Shelf, find_sources
from agent.sharing import can_share
from agent.staging import staged_bytes, sweep_staging


def check_room(
    fd: int, writes: Sequence[Write], shelves: Sequence[Shelf] = (), *, copied: int = 0, sweep: bool = True
) -> None:
    """Refuses at once what can't fit, rather than fill the disk and fail then; blocks. `shelves` are gone
    through only where room is short: what lies there and can be shared takes none.

    `copied`: bytes of whole files that are copied besides, or shared.

    What an earlier task left in staging is not worth a failure: it is swept. Without `sweep` nothing is
    changed, and it counts as free.
    """
    needed = copied + sum(write.entry.size - zero_bytes(write.entry) for write in writes)
    free = free_bytes(fd)
    if needed > free:
        if sweep:
            sweep_staging(fd)
            free = free_bytes(fd)
        else:
            free += staged_bytes(fd)
    if needed > free and can_share(fd):
        needed -= copied + _shared(writes, shelves)
    if needed > free:
        raise TaskFailed(
            "DiskFull",
            f"{needed} bytes are to be written and the target's file system has room for {free}",
            hint="free some space or make the tree smaller",
        )


def _shared(writes: Sequence[Write], shelves: Sequence[Shelf]) -> int:
    found = find_sources(writes, shelves).blocks
    return sum(
        block_length(entry.size, number)
        for entry in (write.entry for write in writes)
        for number in range(block_count(entry.size) - 1)
        if block_digest(entry.blocks, number) in found
    )


def free_bytes(fd: int) -> int:
    """What the file system of an open directory has room for; blocks."""
    status = os.fstatvfs(fd)
    blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return blocks * status.f_frsize
