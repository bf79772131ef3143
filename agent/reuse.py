"""Blocks that the target already holds somewhere: where they are, and reading them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from agent.blocks import block_size_for
from agent.changes import Write
from agent.errors import PathRefused
from agent.folders import Folders
from agent.scan import OPEN_FILE, read_exactly
from agent.wire.messages import DIGEST_SIZE


@dataclass(frozen=True, slots=True)
class Source:
    """Where a block may be found in the target; it is verified before use."""

    path: str
    offset: int


def find_sources(writes: Iterable[Write], contents: Iterable[tuple[str, int, bytes]]) -> dict[bytes, Source]:
    """For each wanted block that some file of the target holds, one place where it is. Pure.

    `contents` are (path, size, block digests) of files in the target.
    """
    wanted = {
        blocks[at : at + DIGEST_SIZE]
        for blocks in (write.entry.blocks for write in writes)
        for at in range(0, len(blocks), DIGEST_SIZE)
    }
    sources: dict[bytes, Source] = {}
    if not wanted:
        return sources
    for path, size, blocks in contents:
        for at in range(0, len(blocks), DIGEST_SIZE):
            digest = blocks[at : at + DIGEST_SIZE]
            if digest in wanted and digest not in sources:
                sources[digest] = Source(path, at // DIGEST_SIZE * block_size_for(size))
    return sources


class Reader:
    """Reads blocks of files in the target into one buffer, keeping the last file open."""

    def __init__(self, root_fd: int, buffer: bytearray) -> None:
        self._buffer = memoryview(buffer)
        self._folders = Folders(root_fd)
        self._path = ""
        self._fd = -1

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._shut()
        self._folders.close()

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, source: Source, length: int) -> memoryview | None:
        """`length` bytes of a source, valid until the next call; None if they can't be had (any more)."""
        try:
            if source.path != self._path or self._fd < 0:
                self._shut()
                above, name = self._folders.locate(source.path)
                self._fd = os.open(name, OPEN_FILE, dir_fd=above)
                self._path = source.path
            content = self._buffer[:length]
            return content if read_exactly(self._fd, content, source.offset) else None
        except (OSError, PathRefused):
            return None
