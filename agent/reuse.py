"""Blocks that this host already holds somewhere: where they are, and reading them.

A shelf is a directory held open whose files may hold what is wanted: the target itself comes first, and
whatever else lies on the same file system may follow. What is taken from one is verified before use.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.blocks import block_size_for
from agent.changes import Write
from agent.errors import PathRefused
from agent.folders import Folders
from agent.scan import OPEN_FILE, read_up_to
from agent.wire.messages import DIGEST_SIZE

Content = tuple[str, int, bytes]
"""A file whose content is known: its path, its size, and the digests of its blocks."""


class Searchable(ABC, Iterable[Content]):
    """Files of which those that matter can be had without going through all of them."""

    @abstractmethod
    def holding(self, blocks: Collection[bytes]) -> Iterable[Content]:
        """Those that have one of these blocks, given by their digests, and perhaps others; in any case all
        that have the path of one that is to be written."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A directory open as `fd`, which stays the caller's, and what its files hold as far as that is known."""

    fd: int
    contents: Iterable[Content]
    partial: bool = False
    """Whether files may lack some of their blocks, so that none is an earlier version of anything."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a block may be found: on which shelf, in which file, from which byte on."""

    shelf: int
    path: str
    offset: int


@dataclass(frozen=True, slots=True)
class Old:
    """A file that may be an earlier version of a wanted one."""

    shelf: int
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Sources:
    """All that may be found on `shelves`: blocks by their digests, and earlier versions of wanted files by
    the paths of these."""

    shelves: tuple[int, ...] = ()
    blocks: Mapping[bytes, Source] = field(default_factory=dict)
    olds: Mapping[str, Old] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.blocks or self.olds)


def find_sources(writes: Sequence[Write], shelves: Sequence[Shelf]) -> Sources:
    """For each wanted block that some file on a shelf holds, one place where it is; and for each file to
    write one that had its name, or else one that shares a block with it. Blocks as far as a shelf's contents
    have to be read.

    The first shelf that has something counts, and where all blocks were found no other is looked through.
    """
    wanted = {digest for write in writes for digest in _digests(write.entry.blocks)}
    paths = {write.entry.path for write in writes if write.entry.size}
    found: dict[bytes, Source] = {}
    olds: dict[str, Old] = {}
    sizes: dict[tuple[int, str], int] = {}
    for number, shelf in enumerate(shelves):
        if len(found) == len(wanted):
            break
        contents = shelf.contents
        if isinstance(contents, Searchable):
            contents = contents.holding(wanted)
        for path, size, blocks in contents:
            if path in paths and path not in olds and not shelf.partial:
                olds[path] = Old(number, path, size)
            if len(blocks) == DIGEST_SIZE and blocks not in wanted:
                continue  # most files have one block
            for at, digest in enumerate(_digests(blocks)):
                if digest in wanted and digest not in found:
                    found[digest] = Source(number, path, at * block_size_for(size))
                    if not shelf.partial:
                        sizes[number, path] = size
    for path, blocks in ((write.entry.path, write.entry.blocks) for write in writes):
        if path in olds:
            continue
        for source in (found[digest] for digest in _digests(blocks) if digest in found):
            if (size_there := sizes.get((source.shelf, source.path))) is not None:
                olds[path] = Old(source.shelf, source.path, size_there)
                break
    return Sources(tuple(shelf.fd for shelf in shelves), found, olds)


def _digests(blocks: bytes) -> Iterable[bytes]:
    return (blocks[at : at + DIGEST_SIZE] for at in range(0, len(blocks), DIGEST_SIZE))


class Reader:
    """Reads blocks of files on `shelves` into a buffer of its own, keeping the last file open."""

    def __init__(self, shelves: Sequence[int]) -> None:
        self._buffer = memoryview(b"")
        self._shelves = [Folders(fd) for fd in shelves]
        self._at: tuple[int, str] | None = None
        self._fd = -1

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._shut()
        for folders in self._shelves:
            folders.close()

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def some(self, source: Source, length: int) -> memoryview:
        """Up to `length` bytes of a source, as many as can be had; valid until the next call."""
        return self.of(self.open(source), source.offset, length)

    def of(self, fd: int | None, offset: int, length: int) -> memoryview:
        """As `some`, of an open file."""
        if length > len(self._buffer):
            self._buffer = memoryview(bytearray(length))
        if fd is None:
            return self._buffer[:0]
        try:
            return self._buffer[: read_up_to(fd, self._buffer[:length], offset)]
        except OSError:
            return self._buffer[:0]

    def open(self, source: Source) -> int | None:
        """A descriptor of the file of a source, valid until the next call; None if there is none."""
        if self._at != (source.shelf, source.path) or self._fd < 0:
            self._shut()
            try:
                above, name = self._shelves[source.shelf].locate(source.path)
                self._fd = os.open(name, OPEN_FILE, dir_fd=above)
            except (OSError, PathRefused):
                return None
            self._at = source.shelf, source.path
        return self._fd
