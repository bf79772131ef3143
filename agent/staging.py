"""The staging directory of a target: where files are put together, and what a task that was cut short leaves.

What is staged bears the digest of what it is to become, so that the next task finds in it the blocks that
came already. They are verified before use, like everything that is not fresh from the network.
"""

import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from agent.changes import Write
from agent.failures import TaskFailed, about
from agent.filenames import named
from agent.folders import OPEN_FOLDER, Folders
from agent.index import STAGING
from agent.owners import NOBODYS, Ids, give
from agent.pulse import beat
from agent.wire.messages import Entry

_LEFT = "left"
_NAME = re.compile(r"(?:[0-9a-f]+|left)\.([0-9a-f]{32})")

HOLE = 64 * 1024
"""Zeros in a row that are left out of a file instead of being written."""

_ZEROS = bytes(HOLE)

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True, eq=False)
class Partial:
    """A file of several blocks that is being put together."""

    write: Write
    fd: int
    name: str
    missing: int
    soiled: set[int] = field(default_factory=set)
    """Blocks where something else may stand by now than nothing."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arrived(self) -> bool:
        """Counts one block; whether it was the last."""
        with self.lock:
            self.missing -= 1
            return self.missing == 0


class Landed(msgspec.Struct, frozen=True, gc=False):
    """What was placed: enough to tell later whether it is still the same file."""

    ino: int
    mtime_ns: int


class Staged(msgspec.Struct, frozen=True):
    """A file or link that is complete, and not in its place."""

    write: Write
    name: str
    landed: Landed


class _found_in_staging(about):
    """For calls that are given a name in staging, and nothing else that may not be there: these find nothing
    only if somebody took away staging, or what is in it for `path`."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, FileNotFoundError):
            message = (
                f"{named(self._path)} was being put together in {STAGING!r}, and somebody took that away"
            )
            raise TaskFailed("TargetChanged", message, hint="it is tried again") from error


def stage_file(
    staging_fd: int, number: int, path: str, kept_for: Entry | None = None, mode: int = 0o600
) -> tuple[int, str]:
    """A new empty file, the so-many-th of a task, that is to become what is at `path`; and its name.

    By the entry that it is `kept_for`, if any, the next task finds it. Only the agent's user can open it,
    whatever the mode, as staging lets in nobody else.
    """
    name = f"{number:x}" if kept_for is None else f"{number:x}.{_key(kept_for)}"
    with _found_in_staging(path):
        return os.open(name, _CREATE, mode, dir_fd=staging_fd), name


def stage_link(entry: Entry, name: str, staging_fd: int, ids: Ids) -> Landed:
    """Makes a symlink; where it leads is never looked at."""
    with _found_in_staging(entry.path):
        os.symlink(entry.link, name, dir_fd=staging_fd)
    if ids != NOBODYS:
        with _found_in_staging(entry.path):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging_fd)
        try:
            with about(entry.path):
                give(fd, ids, entry.path, opened=False)
        finally:
            os.close(fd)
    time = entry.mtime_ns
    with _found_in_staging(entry.path):
        os.utime(name, ns=(time, time), dir_fd=staging_fd, follow_symlinks=False)
        status = os.lstat(name, dir_fd=staging_fd)
        return Landed(status.st_ino, status.st_mtime_ns)


def leave_staging(folders: Folders, path: str, staging_fd: int, name: str) -> None:
    """Gives what is staged under `name` its place in the target, over what is there."""
    above, last = folders.locate(path)
    try:
        os.rename(name, last, src_dir_fd=staging_fd, dst_dir_fd=above)
    except FileNotFoundError:
        with _found_in_staging(path):
            os.lstat(name, dir_fd=staging_fd)
        raise


def drop_staged(path: str, staging_fd: int, name: str) -> None:
    """Removes what is staged under `name`: what is at `path` in the target stays."""
    with _found_in_staging(path):
        os.unlink(name, dir_fd=staging_fd)


def open_staging(root_fd: int) -> int:
    """The staging directory, with nothing in it but what a task that was cut short had staged there."""
    try:
        fd = os.open(STAGING, OPEN_FOLDER, dir_fd=root_fd)
    except OSError:
        return _make(root_fd)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        # Somebody else could change in there what was verified.
        os.close(fd)
        return _make(root_fd)
    try:
        _set_aside(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def leftovers(staging_fd: int, writes: Iterable[Write]) -> list[tuple[str, int, bytes]]:
    """What is set aside there of these files: name, and size and blocks as they are to be."""
    there = set(os.listdir(staging_fd))
    named = ((f"{_LEFT}.{_key(write.entry)}", write.entry) for write in writes) if there else ()
    return [(name, entry.size, entry.blocks) for name, entry in named if name in there]


def _make(root_fd: int) -> int:
    sweep_staging(root_fd)
    os.mkdir(STAGING, 0o700, dir_fd=root_fd)
    return os.open(STAGING, OPEN_FOLDER, dir_fd=root_fd)


def _set_aside(fd: int) -> None:
    """Gives what may be of use names that this task gives to nothing, and removes the rest."""
    fullest: dict[str, tuple[int, str]] = {}
    with os.scandir(fd) as items:
        for item in items:
            match = _NAME.fullmatch(item.name)
            if match is not None and item.is_file(follow_symlinks=False):
                # Of two attempts at the same file the one that got further: what did not come is a hole.
                filled = item.stat(follow_symlinks=False).st_blocks
                fullest[match[1]] = max(fullest.get(match[1], (-1, "")), (filled, item.name))
    _remove_all(fd, {name for _, name in fullest.values()})
    for key, (_, name) in fullest.items():
        os.rename(name, f"{_LEFT}.{key}", src_dir_fd=fd, dst_dir_fd=fd)


def _key(entry: Entry) -> str:
    return hashlib.sha256(entry.blocks).hexdigest()[:32]


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
        with about(STAGING):
            _remove_all(fd)
    finally:
        os.close(fd)
    os.rmdir(STAGING, dir_fd=root_fd)


def staged_bytes(root_fd: int) -> int:
    """What `sweep_staging` would free, as far as files in it are concerned."""
    try:
        fd = os.open(STAGING, OPEN_FOLDER, dir_fd=root_fd)
    except OSError:
        return 0
    try:
        with os.scandir(fd) as items:
            found = [item.stat(follow_symlinks=False) for item in items]
    except OSError:
        return 0
    finally:
        os.close(fd)
    return sum(status.st_blocks * 512 for status in found if status.st_nlink == 1)


def _remove_all(fd: int, but: Iterable[str] = ()) -> None:
    with os.scandir(fd) as items:
        entries = [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
    for name, is_dir in entries:
        if name in but:
            continue
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
    """`name` cut to `limit` bytes, between characters; of what is no UTF-8 between bytes."""
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return name
