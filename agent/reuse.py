"""Blocks that this host already holds somewhere: where they are, and reading them.

A shelf is a directory held open whose files may hold what is wanted: the target itself comes first, and
whatever else lies on the same file system may follow. What is taken from one is verified before use.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.blocks import block_size_for
from agent.changes import Write
from agent.errors import PathRefused
from agent.folders import Folders
from agent.scan import OPEN_FILE, read_exactly
from agent.wire.messages import DIGEST_SIZE

Content = tuple[str, int, bytes]
"""A file whose content is known: its path, its size, and the digests of its blocks."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A directory open as `fd`, which stays the caller's, and what its files hold as far as that is known."""

    fd: int
    contents: Iterable[Content]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a block may be found: on which shelf, in which file, from which byte on."""

    shelf: int
    path: str
    offset: int


@dataclass(frozen=True, slots=True)
class Sources:
    """All that may be found on `shelves`, by the digest of the block."""

    shelves: tuple[int, ...] = ()
    blocks: Mapping[bytes, Source] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.blocks)


def find_sources(writes: Iterable[Write], shelves: Sequence[Shelf]) -> Sources:
    """For each wanted block that some file on a shelf holds, one place where it is. Pure.

    The first shelf that has a block counts.
    """
    wanted = {
        blocks[at : at + DIGEST_SIZE]
        for blocks in (write.entry.blocks for write in writes)
        for at in range(0, len(blocks), DIGEST_SIZE)
    }
    found: dict[bytes, Source] = {}
    for number, shelf in enumerate(shelves if wanted else ()):
        for path, size, blocks in shelf.contents:
            for at in range(0, len(blocks), DIGEST_SIZE):
                digest = blocks[at : at + DIGEST_SIZE]
                if digest in wanted and digest not in found:
                    found[digest] = Source(number, path, at // DIGEST_SIZE * block_size_for(size))
    return Sources(tuple(shelf.fd for shelf in shelves), found)


class Reader:
    """Reads blocks of files on `shelves` into one buffer, keeping the last file open."""

    def __init__(self, shelves: Sequence[int], buffer: bytearray) -> None:
        self._buffer = memoryview(buffer)
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

    def read(self, source: Source, length: int) -> memoryview | None:
        """`length` bytes of a source, valid until the next call; None if they can't be had (any more)."""
        try:
            if self._at != (source.shelf, source.path) or self._fd < 0:
                self._shut()
                above, name = self._shelves[source.shelf].locate(source.path)
                self._fd = os.open(name, OPEN_FILE, dir_fd=above)
                self._at = source.shelf, source.path
            content = self._buffer[:length]
            return content if read_exactly(self._fd, content, source.offset) else None
        except (OSError, PathRefused):
            return None
