"""Raw frames of a tree: read once, compressed once, and sent to all agents that ask for the same.

Agents that start from the same ask for the same blocks in the same order. While several are served, what was
read last is kept for the others, within a bound; one alone is read for directly.
"""

import errno
import hashlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from agent.blocks import block_digest, block_size_for
from agent.errors import PathRefused
from agent.folders import Folders
from agent.packing import pack
from agent.scan import OPEN_FILE, Found, read_exactly
from agent.wire.messages import Entry
from reconciler.sync.shared_memory import new_buffer, shared_copy

UNSERVED = -1
"""The length of a block whose file is not what the index says any more."""

KEPT_BYTES = 32 * 1024 * 1024
"""Frames of one tree that are kept: as much as an agent may have asked for."""

Part = tuple[tuple[int, int, int], ...]
"""Blocks of a frame, each as (ordinal of its entry, number, length)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`unpacked` is the size of the contents where `payload` is compressed, else 0."""

    blocks: Part
    payload: bytes | bytearray | memoryview
    unpacked: int = 0
    ranges: Part = ()
    """Each as (ordinal of its entry, offset, length), instead of blocks."""


class Frames:
    """Those of one tree that are at hand."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[Part, bool], Frame] = OrderedDict()
        self._bytes = 0
        self._reading: dict[tuple[Part, bool], trio.Event] = {}
        self._users = 0
        self.shared = False
        """Whether they are read into memory that worker processes can be shown."""
        self.reads = 0
        """How many frames were read from files."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For the time in which one agent is served."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._kept.clear()
                self._bytes = 0

    async def get(self, part: Part, packs: bool, read: Callable[[], Awaitable[Frame]]) -> Frame:
        """A frame, from another agent's reading or by `read`."""
        if self._users < 2:
            self.reads += 1
            return await read()
        key = (part, packs)
        while (reading := self._reading.get(key)) is not None:
            await reading.wait()
        frame = self._kept.get(key)
        if frame is not None:
            self._kept.move_to_end(key)
            return frame
        done = self._reading[key] = trio.Event()
        try:
            self.reads += 1
            frame = await read()
        finally:
            # If this reading was cancelled, the next of those who wait reads for itself.
            del self._reading[key]
            done.set()
        self._keep(key, frame)
        return frame

    def _keep(self, key: tuple[Part, bool], frame: Frame) -> None:
        if any(length == UNSERVED for _, _, length in frame.blocks):
            return
        self._kept[key] = frame
        self._bytes += len(frame.payload)
        while self._bytes > self._kept_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1].payload)


def read_frame(
    root_fd: int,
    entries: Sequence[Entry],
    found: Mapping[str, Found],
    part: Part,
    *,
    packs: bool,
    shared: bool = False,
) -> Frame:
    """Reads the blocks of one frame, into shared memory if that is wanted; blocks, so call it in a worker
    thread."""
    # What is compressed is copied once more.
    view = new_buffer(sum(length for _, _, length in part), shared=shared and not packs)
    served: list[tuple[int, int, int]] = []
    at = 0
    with Folders(root_fd) as folders:
        for ordinal, number, length in part:
            entry = entries[ordinal]
            offset = number * block_size_for(entry.size)
            digest = block_digest(entry.blocks, number)
            if read_part(folders, entry, found[entry.path], offset, view[at : at + length], digest):
                served.append((ordinal, number, length))
                at += length
            else:
                served.append((ordinal, number, UNSERVED))
    payload = view[:at]
    packed = pack(payload) if packs else None
    if packed is None:
        return Frame(tuple(served), shared_copy(payload) if shared and packs else payload)
    return Frame(tuple(served), shared_copy(packed) if shared else packed, unpacked=len(payload))


def read_part(
    folders: Folders, entry: Entry, found: Found, offset: int, view: memoryview, digest: bytes = b""
) -> bool:
    """Fills `view` from a file; False if the file is not what the index says any more.

    A file to which something was added holds still what it did, most likely: a log. Where that is all of a
    block, its `digest` tells; of less than a block, the agent checks what comes of it, as ever.
    """
    try:
        above, name = folders.locate(entry.path)
        fd = os.open(name, OPEN_FILE, dir_fd=above)
    except (FileNotFoundError, PathRefused):
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES):
            return False
        raise
    try:
        status = os.fstat(fd)
        if found.is_file_still(status):
            return read_exactly(fd, view, offset)
        if not found.has_grown(status) or not read_exactly(fd, view, offset):
            return False
        return not digest or hashlib.sha256(view).digest() == digest
    finally:
        os.close(fd)
