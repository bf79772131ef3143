"""Begins a new version as a copy of the one before, so that only what differs has to travel.

Files are cloned where the file system can (they share their blocks until one of them is written to),
else copied; never linked, as a program that writes to its file would write to that of each version.
Each is read and compared with its digests: what does not hold what was placed is left out, and comes
from the primary, unless local edits are kept by policy. Blocks of files that the new tree changes are
then found beside them, as in any other target.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import trio

from agent.blocks import MAX_BLOCK, block_size_for
from agent.errors import PathRefused
from agent.failures import TaskFailed
from agent.folders import Folders
from agent.ignore import Ignore
from agent.index import PERMISSIONS, ancestors
from agent.manifest import Manifest, Placed
from agent.pulse import beat
from agent.record import stamp_of
from agent.room import free_bytes
from agent.scan import OPEN_FILE, found_from, read_exactly
from agent.sharing import Sharing
from agent.staging import write_all
from agent.wire.messages import Entry

SLICE_BYTES = 64 * 1024 * 1024
"""Bytes that one call into a worker thread copies, as cancellation waits for it."""

SLICE_FILES = 512

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Clone:
    """What to take along: not what `ignore` matches nor what is `apart` (rendered, or the agent's own)."""

    source_fd: int
    target_fd: int
    ignore: Ignore
    apart: frozenset[str]
    keep_edits: bool
    placed: list[Placed] = field(default_factory=list)
    _sharing: Sharing = field(default_factory=Sharing)
    _buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(MAX_BLOCK)))

    async def run(self, manifest: Manifest) -> list[Placed]:
        """Copies what `manifest` lists; what came to stand in the new version, for its own manifest."""
        for some in _slices(self._wanted(manifest)):
            await trio.to_thread.run_sync(self._copy_some, some)
        return self.placed

    def _wanted(self, manifest: Manifest) -> Iterator[Placed]:
        for item in sorted(manifest.placed, key=lambda item: item.entry.path):
            path, is_dir = item.entry.path, item.entry.kind == "directory"
            if not self.apart.isdisjoint([path, *ancestors(path)]):
                continue
            if bool(self.ignore) and self.ignore.covers(path, is_dir):
                continue
            if item.kept and not self.keep_edits:
                continue
            yield item

    def _copy_some(self, some: Iterable[Placed]) -> None:
        with Folders(self.source_fd) as source, Folders(self.target_fd) as target:
            for item in some:
                entry = item.entry
                try:
                    placed: Placed | None
                    if entry.kind == "directory":
                        placed = self._make_folder(target, entry)
                    elif entry.kind == "symlink":
                        placed = self._copy_link(source, target, entry)
                    else:
                        placed = self._copy_file(source, target, item)
                except (FileNotFoundError, PathRefused):
                    continue  # it, or what held it, is gone: the new version gets it from the primary
                if placed is not None:
                    self.placed.append(placed)

    def _make_folder(self, target: Folders, entry: Entry) -> Placed:
        above, name = target.locate(entry.path)
        os.mkdir(name, entry.mode & PERMISSIONS | 0o700, dir_fd=above)
        mode = stat.S_IMODE(os.lstat(name, dir_fd=above).st_mode) & PERMISSIONS
        return Placed(_with_mode(entry, mode))

    def _copy_link(self, source: Folders, target: Folders, entry: Entry) -> Placed | None:
        above, name = source.locate(entry.path)
        try:
            link = os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        if link != entry.link and not self.keep_edits:
            return None
        below, name = target.locate(entry.path)
        os.symlink(link, name, dir_fd=below)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=below, follow_symlinks=False)
        return Placed(entry, None, link != entry.link)

    def _copy_file(self, source: Folders, target: Folders, item: Placed) -> Placed | None:
        entry = item.entry
        above, name = source.locate(entry.path)
        try:
            fd = os.open(name, OPEN_FILE, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EIO):
                return None
            raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or (found.st_size != entry.size and not self.keep_edits):
                return None
            below, name = target.locate(entry.path)
            copy = os.open(name, _CREATE, 0o600, dir_fd=below)
            try:
                blocks = self._fill(copy, fd, found.st_size)
                edited = blocks != entry.blocks or found.st_size != entry.size
                if edited and (not self.keep_edits or blocks is None):
                    os.unlink(name, dir_fd=below)
                    return None
                mode, mtime = entry.mode, entry.mtime_ns
                if edited:
                    mode, mtime = stat.S_IMODE(found.st_mode), found.st_mtime_ns
                os.fchmod(copy, mode & PERMISSIONS)
                os.utime(copy, ns=(mtime, mtime))
                if edited:
                    return Placed(entry, None, True)
                # Whoever writes to it from now on gives it another time.
                return Placed(entry, stamp_of(found_from(os.fstat(copy))))
            finally:
                os.close(copy)
        finally:
            os.close(fd)

    def _fill(self, copy: int, fd: int, size: int) -> bytes | None:
        """Fills a new file from another one; the digests of its blocks, None if that changes meanwhile."""
        cloned = self._sharing.whole(copy, fd)
        if not cloned:
            _check_room(copy, size)
        block_size = block_size_for(size)
        digests: list[bytes] = []
        for offset in range(0, size, block_size):
            beat()
            block = self._buffer[: min(block_size, size - offset)]
            if not _read(copy if cloned else fd, block, offset):
                return None
            digests.append(hashlib.sha256(block).digest())
            if not cloned:
                write_all(copy, block, offset)
        return b"".join(digests) if os.fstat(copy).st_size == size else None


def _read(fd: int, block: memoryview, offset: int) -> bool:
    try:
        return read_exactly(fd, block, offset)
    except OSError as error:
        if error.errno == errno.EIO:
            return False
        raise


def _check_room(fd: int, size: int) -> None:
    free = free_bytes(fd)
    if size > free:
        raise TaskFailed(
            "DiskFull",
            f"a file of {size} bytes is to be copied into the new release and there is room for {free}",
            hint="free some space, or keep fewer releases",
        )


def _with_mode(entry: Entry, mode: int) -> Entry:
    return Entry(path=entry.path, kind=entry.kind, mode=mode, mtime_ns=entry.mtime_ns)


def _slices(items: Iterable[Placed]) -> Iterator[list[Placed]]:
    some: list[Placed] = []
    room = SLICE_BYTES
    for item in items:
        some.append(item)
        room -= item.entry.size
        if room <= 0 or len(some) >= SLICE_FILES:
            yield some
            some, room = [], SLICE_BYTES
    if some:
        yield some
