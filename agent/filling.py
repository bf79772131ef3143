"""Puts blocks into the files of a task: from elsewhere on this host, as holes, or as they arrive.

All of it blocks and runs in worker threads. A block counts only once its digest was found in what was
written or is about to be: whatever it was taken from may be changed by somebody at any time.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.blocks import block_count, block_digest, block_length, block_size_for, zero_blocks
from agent.changes import Write
from agent.folders import Folders
from agent.pieces import shifts_between
from agent.reuse import Old, Reader, Source, Sources
from agent.sharing import Sharing
from agent.staging import Partial
from agent.writer import Writer

REUSE_BYTES = 16 * 1024 * 1024
"""Bytes that one call into a worker thread copies."""

CHUNK_FILES = 512

Wanted = tuple[int, int]
"""A block, as a request names it: the ordinal of its entry in the index, and its number."""

Copy = tuple[int, int, Source]
"""A wanted block, and where it may be."""


@dataclass(slots=True)
class Plan:
    """Where what some files need may come from."""

    empty: list[int] = field(default_factory=list)
    holes: list[Wanted] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    missing: list[Wanted] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """Whether anything needs to be done here before the rest is asked for."""
        return bool(self.holes or self.copies)


class Filler:
    """`writes` are by the ordinals of their entries. `partials` has the files of several blocks that are
    under way; whoever fills one has begun it. `reused` counts bytes that did not have
    to be sent, `blocks_reused` whole blocks."""

    def __init__(
        self,
        writer: Writer,
        writes: Mapping[int, Write],
        sources: Sources,
        partials: Mapping[int, Partial],
    ) -> None:
        self._writer = writer
        self._writes = writes
        self._sources = sources
        self._partials = partials
        self._lock = threading.Lock()
        self._sharing = Sharing()
        self.reused = self.blocks_reused = 0

    def plan(self, ordinals: Iterable[int]) -> Plan:
        plan = Plan()
        found = self._sources.blocks
        for ordinal in ordinals:
            entry = self._writes[ordinal].entry
            if not entry.size:
                plan.empty.append(ordinal)
            holes = zero_blocks(entry)
            plan.holes += [(ordinal, number) for number in holes]
            left_out = frozenset(holes)
            for number in range(block_count(entry.size)):
                if number in left_out:
                    continue
                source = found.get(block_digest(entry.blocks, number))
                if source is None:
                    plan.missing.append((ordinal, number))
                else:
                    plan.copies.append((ordinal, number, source))
        return plan

    def put_empty(self, ordinals: Iterable[int]) -> None:
        with Folders(self._writer.root_fd) as folders:
            for ordinal in ordinals:
                self._writer.put(folders, self._writes[ordinal], b"")

    def put_holes(self, holes: Iterable[Wanted]) -> list[int]:
        """Leaves out what is nothing but zeros; the files that are done."""
        complete: list[int] = []
        with Folders(self._writer.root_fd) as folders:
            for ordinal, number in holes:
                if self._writer.count_block(folders, self._partials[ordinal]):
                    complete.append(ordinal)
                self.count(block_length(self._writes[ordinal].entry.size, number))
        return complete

    def portions(self, copies: Sequence[Copy]) -> Iterable[Sequence[Copy]]:
        """Copies in portions for one call into a worker thread each."""
        start, room = 0, REUSE_BYTES
        for at, (ordinal, number, _source) in enumerate(copies):
            room -= block_length(self._writes[ordinal].entry.size, number)
            if room <= 0 or at - start >= CHUNK_FILES or at == len(copies) - 1:
                yield copies[start : at + 1]
                start, room = at + 1, REUSE_BYTES

    def copy(self, copies: Iterable[Copy]) -> tuple[list[Wanted], list[int]]:
        """Copies what is as expected, or shares it; the blocks that are not, and the files that are done."""
        unusable: list[Wanted] = []
        complete: list[int] = []
        with Folders(self._writer.root_fd) as folders, Reader(self._sources.shelves) as reader:
            for run, shareable in self._runs(copies):
                shared = shareable and self._share(reader, run)
                for ordinal, number, source in run:
                    size = self._writes[ordinal].entry.size
                    length = block_length(size, number)
                    if shared:
                        offset = number * block_size_for(size)
                        content = reader.of(self._partials[ordinal].fd, offset, length)
                    else:
                        content = reader.of(reader.open(source), source.offset, length)
                    if len(content) < length or not self.matches(ordinal, number, content):
                        unusable.append((ordinal, number))
                        continue
                    self.count(length)
                    if shared:
                        self._partials[ordinal].soiled.discard(number)
                        done = self._writer.count_block(folders, self._partials[ordinal])
                    else:
                        done = self.put(folders, ordinal, number, content)
                    if done:
                        complete.append(ordinal)
        return unusable, complete

    def _runs(self, copies: Iterable[Copy]) -> Iterable[tuple[list[Copy], bool]]:
        """Copies in a row from one place to another, and whether they may share that room.

        The last block of a file is written, so that until then a crash leaves it short, as torn; and so is
        what is only supposed to be where it is looked for.
        """
        run: list[Copy] = []
        run_shareable = False
        for copy in copies:
            ordinal, number, source = copy
            entry = self._writes[ordinal].entry
            known = self._sources.blocks.get(block_digest(entry.blocks, number)) is source
            shareable = self._sharing.possible and known and number < block_count(entry.size) - 1
            if run and not (shareable and run_shareable and self._follows(run[-1], copy)):
                yield run, run_shareable
                run = []
            run.append(copy)
            run_shareable = shareable
        if run:
            yield run, run_shareable

    def _follows(self, before: Copy, copy: Copy) -> bool:
        step = block_size_for(self._writes[copy[0]].entry.size)
        expected = Source(before[2].shelf, before[2].path, before[2].offset + step)
        return (before[0], before[1] + 1, expected) == copy

    def _share(self, reader: Reader, run: Sequence[Copy]) -> bool:
        """Lets the file under way share the room of a run, whatever is there; whether it does."""
        ordinal, number, source = run[0]
        fd, partial = reader.open(source), self._partials[ordinal]
        if fd is None:
            return False
        step = block_size_for(self._writes[ordinal].entry.size)
        # Before it is tried: where it fails half way, the first of it may be there.
        partial.soiled.update(number for _, number, _ in run)
        return self._sharing.part(partial.fd, number * step, fd, source.offset, len(run) * step)

    def matches(self, ordinal: int, number: int, content: bytes | bytearray | memoryview) -> bool:
        digest = block_digest(self._writes[ordinal].entry.blocks, number)
        return hashlib.sha256(content).digest() == digest

    def put(
        self, folders: Folders, ordinal: int, number: int, content: bytes | bytearray | memoryview
    ) -> bool:
        """Writes a block that matches; whether a file under way is done with it."""
        write = self._writes[ordinal]
        if block_count(write.entry.size) == 1:
            self._writer.put(folders, write, content)
            return False
        return self._writer.put_block(folders, self._partials[ordinal], number, content)

    def count(self, reused: int, *, whole: bool = True) -> None:
        with self._lock:
            self.reused += reused
            self.blocks_reused += whole

    def old_of(self, ordinal: int) -> Old | None:
        return self._sources.olds.get(self._writes[ordinal].entry.path)

    def shifts(self, ordinal: int) -> list[int]:
        """Where blocks of a file may be in its earlier version, that are not where they were."""
        old = self.old_of(ordinal)
        return shifts_between(old.size, self._writes[ordinal].entry.size) if old is not None else []

    def shifted(self, ordinal: int, numbers: Sequence[int], shift: int) -> list[Copy]:
        """Those of the blocks that would lie within the earlier version, the last ones first."""
        size, old = self._writes[ordinal].entry.size, self.old_of(ordinal)
        copies: list[Copy] = []
        for number in reversed(numbers) if old is not None else ():
            assert old is not None
            offset = number * block_size_for(size) + shift
            if 0 <= offset <= old.size - block_length(size, number):
                copies.append((ordinal, number, Source(old.shelf, old.path, offset)))
        return copies

    def read_old(self, reader: Reader, ordinal: int, offset: int, length: int) -> memoryview:
        """Up to `length` bytes of the earlier version from `offset` on."""
        old = self.old_of(ordinal)
        if old is None or offset < 0:
            return memoryview(b"")
        return reader.some(Source(old.shelf, old.path, offset), length)

    def reader(self) -> Reader:
        return Reader(self._sources.shelves)


def by_file(blocks: Iterable[Wanted]) -> dict[int, list[int]]:
    numbers: dict[int, list[int]] = {}
    for ordinal, number in blocks:
        numbers.setdefault(ordinal, []).append(number)
    return numbers


def take_chunk(waiting: deque[int], writes: Mapping[int, Write]) -> list[int]:
    """Takes from `waiting` the files to be considered in one call: many small ones, or a large one."""
    chunk: list[int] = []
    room = REUSE_BYTES
    while waiting and room > 0 and len(chunk) < CHUNK_FILES:
        chunk.append(waiting.popleft())
        room -= writes[chunk[-1]].entry.size
    return chunk
