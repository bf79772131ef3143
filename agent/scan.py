"""Looks at a tree: what is there (`scan`) and what the files hold (`hash_files`). Follows no symlink.

Both sides use it: the agent on a target, the reconciler on a source. Looking never changes anything,
access times aside.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from agent.blocks import MIN_BLOCK, block_count, block_size_for, zero_digest
from agent.errors import PathRefused
from agent.failures import single
from agent.folders import Folders
from agent.ignore import Ignore
from agent.index import MAX_FILE_SIZE, reserved_name
from agent.pulse import beat

OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Flags that open a regular file to read; non-blocking so that a FIFO put in its place can't hang us."""

SLICE_BYTES = 64 * 1024 * 1024
"""Bytes that one call into a worker thread hashes: a fraction of a second, as cancellation waits for it."""

SLICE_FILES = 512
"""Files that one call into a worker thread hashes."""

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that hash or write large files. Small ones are for a single thread: what they take is short calls,
and two threads that hand Python's lock to each other at each of them take twice the processor time of one."""

_LOOKS = 10
"""At one entry, while somebody makes a symlink something else and back."""

CLOCK_GRAIN_NS = 20_000_000
"""Two changes within one tick of a file system's clock (at most 10 ms on Linux) look like one."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """One directory entry as `lstat` shows it. `kind` is an `Entry`'s, or "other" (FIFO, socket, device)."""

    kind: str
    mode: int
    size: int
    dev: int
    ino: int
    mtime_ns: int
    ctime_ns: int
    link: str = ""
    uid: int = -1
    gid: int = -1
    nlink: int = 1

    def same_as(self, other: "Found | None") -> bool:
        """Whether this is the very same, untouched entry."""
        return self == other

    def is_file_still(self, status: os.stat_result) -> bool:
        """Whether this is a file and `status` that of the very same, untouched one."""
        return (
            self.kind == "file"
            and status.st_mode == stat.S_IFREG | self.mode
            and status.st_ino == self.ino
            and status.st_size == self.size
            and status.st_mtime_ns == self.mtime_ns
            and status.st_ctime_ns == self.ctime_ns
            and status.st_dev == self.dev
        )

    def has_grown(self, status: os.stat_result) -> bool:
        """Whether this is a file and `status` that of the same one, to which something was added since."""
        return (
            self.kind == "file"
            and status.st_mode == stat.S_IFREG | self.mode
            and status.st_ino == self.ino
            and status.st_dev == self.dev
            and status.st_size > self.size
        )


@dataclass(slots=True)
class Scan:
    """What a walk found, by path. `ignored` holds what an ignore line or a reservation kept out of it."""

    found: dict[str, Found] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    ignored_folders: set[str] = field(default_factory=set)
    """Those of `ignored` that are directories."""
    own: set[str] = field(default_factory=set)
    """Those that only their names keep out, which are trueup's own."""


def found_from(status: os.stat_result, link: str = "") -> Found:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        kind = "file"
    elif stat.S_ISDIR(mode):
        kind = "directory"
    elif stat.S_ISLNK(mode):
        kind = "symlink"
    else:
        kind = "other"
    return Found(
        kind,
        mode & 0o7777,
        status.st_size,
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        link,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
    )


def look_at(folders: Folders, path: str) -> Found | None:
    """What is at `path` now; None if there is nothing, or no directory that could hold it."""
    tries = _LOOKS
    while True:
        tries -= 1
        try:
            fd, name = folders.locate(path)
            status = os.lstat(name, dir_fd=fd)
            link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
        except (FileNotFoundError, NotADirectoryError, PathRefused):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL and tries:  # no symlink any more
                continue
            raise
        return found_from(status, link)


def scan(
    root_fd: int,
    ignore: Ignore,
    *,
    only: Collection[str] | None = None,
    reserved: Collection[str] = (),
) -> Scan:
    """Walks the tree below `root_fd`; blocks, so call it in a worker thread.

    With `only`, directories that it does not hold are found but not entered. What `ignore` matches,
    what is `reserved` and trueup's own names are left out, with all below. Raises OSError where a
    directory can't be read: not having looked is not the same as finding nothing.
    """
    result = Scan()
    found = result.found
    matches = ignore.matches if ignore else None
    with Folders(root_fd) as folders:
        todo = [""]
        while todo:
            folder = todo.pop()
            try:
                fd = folders.fd(folder)
            except (FileNotFoundError, PathRefused):
                # It went away or was replaced while we looked; what replaced it is found next time.
                if folder:
                    del found[folder]
                    continue
                raise
            prefix = f"{folder}/" if folder else ""
            with os.scandir(fd) as items:
                for item in items:
                    name = item.name
                    path = prefix + name
                    is_dir = item.is_dir(follow_symlinks=False)
                    own = "trueup" in name and reserved_name(name)
                    unwanted = matches is not None and matches(path, is_dir)
                    if path in reserved or own or unwanted:
                        result.ignored.add(path)
                        if own and not unwanted:
                            result.own.add(path)
                        if is_dir:
                            result.ignored_folders.add(path)
                        continue
                    try:
                        status = item.stat(follow_symlinks=False)
                        link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        if error.errno == errno.EINVAL:  # no symlink any more
                            continue
                        raise
                    found[path] = found_from(status, link)
                    if is_dir and (only is None or path in only):
                        todo.append(path)
    return result


def settled(found: Found, now_ns: int) -> bool:
    """Whether a later change would show in `found`, read at `now_ns`: its clock has moved on since.

    Whole-second times hint at a file system with a clock of one or two seconds.
    """
    grain = 2_000_000_000 if found.ctime_ns % 1_000_000_000 == 0 else CLOCK_GRAIN_NS
    return found.ctime_ns + grain < now_ns


def same_thing(now: Found | None, before: Found | None) -> bool:
    """Whether nobody changed an entry's content since it was found.

    The change time does not count: another name of the same inode that was removed alters it too.
    """
    if now is None or before is None:
        return now is before
    if now.kind != before.kind or now.ino != before.ino or now.dev != before.dev:
        return False
    if now.kind == "directory":
        return True
    return now.size == before.size and now.mtime_ns == before.mtime_ns and now.link == before.link


class _Slice(msgspec.Struct, frozen=True, gc=False):
    """Blocks `first` to `last` (exclusive) of a file; a whole file when it covers all."""

    path: str
    found: Found
    first: int
    last: int


def _slices(files: Iterable[tuple[str, Found]]) -> Iterator[list[_Slice]]:
    """Jobs for worker threads: many small files, or a piece of a large one."""
    job: list[_Slice] = []
    room = SLICE_BYTES
    for path, found in files:
        count = block_count(found.size)
        per_slice = SLICE_BYTES // block_size_for(found.size)
        for first in range(0, max(count, 1), per_slice):
            last = min(first + per_slice, count)
            job.append(_Slice(path, found, first, last))
            room -= (last - first) * block_size_for(found.size) if count > 1 else found.size
            if room <= 0 or len(job) >= SLICE_FILES:
                yield job
                job, room = [], SLICE_BYTES
    if job:
        yield job


def _hash_job(
    root_fd: int, job: Sequence[_Slice], grown: set[str] | None
) -> list[tuple[str, int, bytes | None]]:
    results: list[tuple[str, int, bytes | None]] = []
    with Folders(root_fd) as folders:
        for piece in job:
            try:
                digests = _hash_slice(folders, piece, grown)
            except OSError as error:
                raise OSError(error.errno, error.strerror, piece.path) from error
            results.append((piece.path, piece.first, digests))
    return results


def _hash_slice(folders: Folders, piece: _Slice, grown: set[str] | None) -> bytes | None:
    """The slice's digests, back to back; None if the file is not what was found, before or after."""

    def is_still() -> bool:
        status = os.fstat(fd)
        if grown is not None and piece.found.has_grown(status):
            grown.add(piece.path)
            return True
        return piece.found.is_file_still(status)

    try:
        above, name = folders.locate(piece.path)
        fd = os.open(name, OPEN_FILE, dir_fd=above)
    except (FileNotFoundError, PathRefused):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        size = piece.found.size
        if not is_still():
            return None
        if size <= MIN_BLOCK:
            digests = _hash_whole(fd, size)
        else:
            digests = hash_range(fd, size, piece.first, piece.last)
        return digests if is_still() else None
    finally:
        os.close(fd)


def _hash_whole(fd: int, size: int) -> bytes | None:
    """As `hash_range`, of all of a file that has one block at most."""
    if not size:
        return b""
    beat()
    content = os.pread(fd, size, 0)
    return hashlib.sha256(content).digest() if len(content) == size else hash_range(fd, size, 0, 1)


def hash_range(fd: int, size: int, first: int, last: int) -> bytes | None:
    """Digests of the blocks `first` to `last` (exclusive) of an open file of `size` bytes.

    None if the file ended early. Holds one block in memory, and does not read those that are holes.
    """
    block_size = block_size_for(size)
    buffer = memoryview(bytearray(min(block_size, size)))
    digests: list[bytes] = []
    sparse = os.fstat(fd).st_blocks * 512 < size
    for number in range(first, last):
        beat()
        start = number * block_size
        length = min(block_size, size - start)
        if sparse and _next_data(fd, start) >= start + length:
            digests.append(zero_digest(length))
            continue
        view = buffer[:length]
        if not read_exactly(fd, view, start):
            return None
        digests.append(hashlib.sha256(view).digest())
    return b"".join(digests)


def _next_data(fd: int, offset: int) -> int:
    """Where the next byte is, from `offset` on, that is no hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        # Nothing but a hole follows; else the file system cannot tell.
        return MAX_FILE_SIZE if error.errno == errno.ENXIO else offset


def read_exactly(fd: int, view: memoryview, offset: int) -> bool:
    """Fills `view` from `offset` of a file; False if the file ends before."""
    return read_up_to(fd, view, offset) == len(view)


def read_up_to(fd: int, view: memoryview, offset: int) -> int:
    """Fills `view` from `offset` of a file as far as the file goes; how many bytes that are."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


async def hash_files(
    root_fd: int, files: Iterable[tuple[str, Found]], *, grown: set[str] | None = None
) -> Mapping[str, bytes | None]:
    """The concatenated block digests of each file, in worker threads.

    None stands for a file that changed since it was found, or while it was read. With `grown`, one that is
    longer now is read as far as it went, and added there. Raises OSError for one that can't be read.
    """
    limiter = trio.CapacityLimiter(WORKERS)
    small_limiter = trio.CapacityLimiter(1)
    pieces: dict[str, dict[int, bytes | None]] = {}
    jobs = _slices(files)

    async def work() -> None:
        for job in jobs:
            of_small_files = sum(piece.found.size for piece in job) <= len(job) * MIN_BLOCK
            for path, first, digests in await trio.to_thread.run_sync(
                _hash_job, root_fd, job, grown, limiter=small_limiter if of_small_files else limiter
            ):
                pieces.setdefault(path, {})[first] = digests

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(work)
    except BaseExceptionGroup as group:
        cause = single(group)
        if isinstance(cause, Exception):
            raise cause from group
        raise
    return await trio.to_thread.run_sync(lambda: {path: _join(parts) for path, parts in pieces.items()})


def _join(parts: Mapping[int, bytes | None]) -> bytes | None:
    if len(parts) == 1:
        return next(iter(parts.values()))
    joined = bytearray()
    for first in sorted(parts):
        part = parts[first]
        if part is None:
            return None
        joined += part
    return bytes(joined)
