"""A process that swaps a directory for a symlink and back, until its input ends; a dot for each thousand."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(one: bytes, other: bytes) -> bool:
    return bool(_libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE) == 0)


def main(folder: Path, aside: Path, outside: Path) -> None:
    os.set_blocking(0, False)
    os.nice(5)  # it shall not keep the tests beside it from their work
    here, there = os.fsencode(folder), os.fsencode(aside)
    swaps = 0
    while True:
        if swaps % 16 == 0:
            try:
                if os.read(0, 1) == b"":
                    break
            except BlockingIOError:
                pass
        if not exchange(here, there):
            # One of them is gone: whoever took it away, there is something to swap again.
            if not os.path.lexists(aside):
                aside.symlink_to(outside)
            os.sched_yield()
            continue
        if not aside.is_symlink() and not folder.is_symlink():
            # Whoever was led to a link put a directory in its place: two directories are no attack.
            shutil.rmtree(aside, ignore_errors=True)
            if not os.path.lexists(aside):
                aside.symlink_to(outside)
            continue
        swaps += 1
        if swaps % 1000 == 0:
            os.write(1, b".")
    if folder.is_symlink():
        exchange(here, there)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
