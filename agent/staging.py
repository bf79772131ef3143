"""The staging directory of a target: where files are put together, and what a killed task leaves."""

import errno
import os
import threading
from dataclasses import dataclass, field

from agent.changes import Write
from agent.folders import OPEN_FOLDER
from agent.index import STAGING
from agent.pulse import beat

HOLE = 64 * 1024
"""Zeros in a row that are left out of a file instead of being written."""

_ZEROS = bytes(HOLE)


@dataclass(slots=True, eq=False)
class Partial:
    """A file of several blocks that is being put together."""

    write: Write
    fd: int
    name: str
    missing: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arrived(self) -> bool:
        """Counts one block; whether it was the last."""
        with self.lock:
            self.missing -= 1
            return self.missing == 0


@dataclass(frozen=True, slots=True)
class Landed:
    """What was placed: enough to tell later whether it is still the same file."""

    ino: int
    mtime_ns: int


def sweep_staging(root_fd: int) -> None:
    """Removes the staging directory, or whatever took its name."""
    try:
        fd = os.open(STAGING, OPEN_FOLDER, dir_fd=root_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            os.unlink(STAGING, dir_fd=root_fd)
            return
        raise
    try:
        _remove_all(fd)
    finally:
        os.close(fd)
    os.rmdir(STAGING, dir_fd=root_fd)


def _remove_all(fd: int) -> None:
    with os.scandir(fd) as items:
        entries = [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
    for name, is_dir in entries:
        if is_dir:
            inner = os.open(name, OPEN_FOLDER, dir_fd=fd)
            try:
                _remove_all(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)


def write_all(fd: int, content: bytes | bytearray | memoryview, offset: int) -> None:
    """Writes all of `content` at `offset`; one `write` may take less."""
    view = memoryview(content)
    while view:
        beat()
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def write_sparsely(fd: int, content: bytes | bytearray | memoryview, offset: int) -> None:
    """As `write_all`, into a file that holds nothing there yet: what is zero may stay a hole."""
    view = memoryview(content)
    start = 0
    for at in range(0, len(view), HOLE):
        part = view[at : at + HOLE]
        # Most content that is not zeros differs in its first or last byte already.
        if len(part) == HOLE and not part[0] and not part[-1] and bytes(part) == _ZEROS:
            if at > start:
                write_all(fd, view[start:at], offset + start)
            start = at + HOLE
    if start < len(view):
        write_all(fd, view[start:], offset + start)


def shorten(name: str, limit: int) -> str:
    """`name` cut to `limit` bytes, between characters."""
    return os.fsencode(name)[:limit].decode(errors="ignore")
