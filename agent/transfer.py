"""Gets the blocks of the files to write: from the target itself where it can, else from the primary.

Three stages run at once: blocks are asked for as long as the window has room, answers are received,
and worker threads verify and write them. So memory is bounded by the window, whatever the tree.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import trio

from agent.blocks import (
    FRAME_TARGET,
    MAX_BLOCK,
    MAX_REQUEST,
    WINDOW,
    block_count,
    block_digest,
    block_length,
)
from agent.changes import Write
from agent.errors import RemoteProtocolError, TransferFailed
from agent.failures import TaskFailed
from agent.folders import Folders
from agent.libc import sync_file_system
from agent.packing import unpack
from agent.pulse import FLUSH_SECONDS, quiet
from agent.reuse import Reader, Source, Sources
from agent.scan import WORKERS
from agent.staging import Partial
from agent.wire.channel import Channel
from agent.wire.messages import AnyMessage, BlockRequest, BlockResponseBin, Cancel
from agent.writer import Writer

ANSWER_DEADLINE = 120.0
"""Seconds without any answer to what was asked, after which a task gives up."""

LONGEST_PATIENCE = 3600.0
"""Seconds more that a primary may ask for, because it keeps to a bandwidth."""

MAX_PARTIAL = 128
"""Files of several blocks that are under way at once, each with an open descriptor."""

REUSE_BYTES = 16 * 1024 * 1024
"""Bytes that one call into a worker thread copies within the target."""

CHUNK_FILES = 512
PACE_BYTES = 64 * 1024 * 1024
"""With durability `paced`, data goes to the disk each time this much was written."""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

Wanted = tuple[int, int]
"""A block, as a request names it: the ordinal of its entry in the index, and its number."""


async def receive(channel: Channel, *, deadline: float = ANSWER_DEADLINE) -> tuple[AnyMessage, bytes | None]:
    """The next message, within a deadline; raises TaskFailed when the primary calls the task off."""
    with trio.move_on_after(deadline):
        message, payload = await channel.receive()
        if isinstance(message, Cancel):
            raise TaskFailed("Cancelled", message.reason or "the primary called the task off")
        return message, payload
    raise TransferFailed(f"the primary sent nothing for {deadline:.0f} s")


class Transfer:
    """Completes `writes`. `ordinals` is the place of each path in the index.

    Afterwards `bytes_received` and `bytes_reused` say where the content came from. Raises
    TransferFailed once the session is gone, RemoteProtocolError for an answer that nobody asked for,
    TaskFailed where the source changed or keeps sending what does not match its digest.
    """

    def __init__(
        self,
        channel: Channel,
        task: str,
        writer: Writer,
        writes: Sequence[Write],
        ordinals: Mapping[str, int],
        sources: Sources,
        *,
        paced: bool = False,
        patience: float = 0.0,
        may_unpack: bool = False,
    ) -> None:
        self._channel = channel
        self._task = task
        self._writer = writer
        self._writes = {ordinals[write.entry.path]: write for write in writes}
        self._sources = sources
        self._paced = paced
        self._may_unpack = may_unpack
        self._deadline = ANSWER_DEADLINE + min(max(patience, 0.0), LONGEST_PATIENCE)
        self._partials: dict[int, Partial] = {}
        self._asked: dict[Wanted, int] = {}
        self._storing = 0
        self._repeated: set[Wanted] = set()
        self._in_window = 0
        self._unpaced = 0
        self._all_asked = False
        self._changed = trio.Condition()
        self._limiter = trio.CapacityLimiter(WORKERS)
        self._buffer = bytearray(MAX_BLOCK if sources else 0)
        self.bytes_received = self.bytes_reused = 0
        self.blocks_requested = self.blocks_reused = 0

    async def run(self) -> None:
        if not self._writes:
            return
        send, take = trio.open_memory_channel[tuple[BlockResponseBin, bytes]](WORKERS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask)
            nursery.start_soon(self._receive, send)
            for _ in range(WORKERS):
                nursery.start_soon(self._store, take.clone())
            take.close()

    # --- asking --------------------------------------------------------------------------------

    async def _ask(self) -> None:
        request: list[Wanted] = []
        request_bytes = 0
        for chunk in self._chunks():
            if request and self._sources:
                # Copying takes its time, and may wait for files that wait for these very blocks.
                await self._send(request)
                request, request_bytes = [], 0
            for ordinal, number in await self._fill_from_target(chunk):
                size = self._writes[ordinal].entry.size
                length = block_length(size, number)
                several = block_count(size) > 1
                must_wait = self._window_is_full(length) or (several and self._partial_waits(ordinal))
                if request and (must_wait or request_bytes >= FRAME_TARGET or len(request) == MAX_REQUEST):
                    await self._send(request)
                    request, request_bytes = [], 0
                if must_wait:
                    async with self._changed:
                        while self._window_is_full(length) or (several and self._partial_waits(ordinal)):
                            await self._changed.wait()
                if several and ordinal not in self._partials:
                    self._partials[ordinal] = await self._in_thread(self._begin, ordinal)
                self._in_window += length
                self._asked[ordinal, number] = length
                request.append((ordinal, number))
                request_bytes += length
        if request:
            await self._send(request)
        async with self._changed:
            self._all_asked = True
            self._changed.notify_all()

    def _window_is_full(self, length: int) -> bool:
        return self._in_window > 0 and self._in_window + length > WINDOW

    def _partial_waits(self, ordinal: int) -> bool:
        return ordinal not in self._partials and len(self._partials) >= MAX_PARTIAL

    def _begin(self, ordinal: int) -> Partial:
        return self._writer.begin(self._writes[ordinal])

    async def _send(self, request: Sequence[Wanted]) -> None:
        self.blocks_requested += len(request)
        await self._channel.send(BlockRequest(task=self._task, blocks=tuple(request)))
        async with self._changed:
            self._changed.notify_all()

    def _chunks(self) -> Iterable[list[int]]:
        """Files to be considered in one call: many small ones, or a large one."""
        chunk: list[int] = []
        room = REUSE_BYTES
        for ordinal, write in self._writes.items():
            chunk.append(ordinal)
            room -= write.entry.size
            if room <= 0 or len(chunk) >= CHUNK_FILES:
                yield chunk
                chunk, room = [], REUSE_BYTES
        if chunk:
            yield chunk

    # --- blocks that the target has ------------------------------------------------------------

    async def _fill_from_target(self, chunk: Sequence[int]) -> list[Wanted]:
        """Places what needs nothing from the primary; the blocks that do."""
        missing: list[Wanted] = []
        local: list[tuple[int, int, Source]] = []
        empty: list[int] = []
        found = self._sources.blocks
        for ordinal in chunk:
            entry = self._writes[ordinal].entry
            if not entry.size:
                empty.append(ordinal)
            for number in range(block_count(entry.size)):
                source = found.get(block_digest(entry.blocks, number)) if found else None
                if source is None:
                    missing.append((ordinal, number))
                else:
                    local.append((ordinal, number, source))
        if empty:
            await self._in_thread(self._put_empty, empty)
        start, room = 0, REUSE_BYTES
        for at, (ordinal, number, _source) in enumerate(local):
            room -= block_length(self._writes[ordinal].entry.size, number)
            if room <= 0 or at - start >= CHUNK_FILES or at == len(local) - 1:
                missing += await self._reuse(local[start : at + 1])
                start, room = at + 1, REUSE_BYTES
        return sorted(missing)

    def _put_empty(self, ordinals: Sequence[int]) -> None:
        with Folders(self._writer.root_fd) as folders:
            for ordinal in ordinals:
                self._writer.put(folders, self._writes[ordinal], b"")

    async def _reuse(self, local: Sequence[tuple[int, int, Source]]) -> list[Wanted]:
        for ordinal, _number, _source in local:
            if block_count(self._writes[ordinal].entry.size) > 1 and ordinal not in self._partials:
                async with self._changed:
                    while self._partial_waits(ordinal):
                        await self._changed.wait()
                self._partials[ordinal] = await self._in_thread(self._begin, ordinal)
        unusable, complete = await self._in_thread(self._copy, local)
        await self._settle(complete)
        return unusable

    def _copy(self, local: Sequence[tuple[int, int, Source]]) -> tuple[list[Wanted], list[int]]:
        """Copies verified blocks within the target; those that were not as expected, and files done."""
        unusable: list[Wanted] = []
        complete: list[int] = []
        shelves = self._sources.shelves
        with Folders(self._writer.root_fd) as folders, Reader(shelves, self._buffer) as reader:
            for ordinal, number, source in local:
                write = self._writes[ordinal]
                length = block_length(write.entry.size, number)
                content = reader.read(source, length)
                if content is None or not _matches(content, write, number):
                    unusable.append((ordinal, number))
                    continue
                self.bytes_reused += length
                self.blocks_reused += 1
                if block_count(write.entry.size) == 1:
                    self._writer.put(folders, write, content)
                elif self._writer.put_block(folders, self._partials[ordinal], number, content):
                    complete.append(ordinal)
        return unusable, complete

    # --- answers -------------------------------------------------------------------------------

    async def _receive(self, send: trio.MemorySendChannel[tuple[BlockResponseBin, bytes]]) -> None:
        async with send:
            while await self._expecting():
                message, payload = await receive(self._channel, deadline=self._deadline)
                if not isinstance(message, BlockResponseBin) or payload is None:
                    raise RemoteProtocolError(f"blocks were expected and {type(message).__name__} came")
                self._check_answer(message, payload)
                self.bytes_received += len(payload)
                self._storing += 1
                await send.send((message, payload))

    async def _expecting(self) -> bool:
        """Waits until an answer is due; False once all blocks were asked for, have come and are good."""
        async with self._changed:
            while not self._asked and (self._storing or not self._all_asked):
                await self._changed.wait()
        return bool(self._asked)

    def _check_answer(self, message: BlockResponseBin, payload: bytes) -> None:
        if message.task != self._task:
            raise RemoteProtocolError("blocks of another task came")
        total = 0
        named: set[Wanted] = set()
        for ordinal, number, length in message.blocks:
            wanted = (ordinal, number)
            if wanted not in self._asked or wanted in named:
                raise RemoteProtocolError(f"block {number} of entry {ordinal} came and was not asked for")
            named.add(wanted)
            if length == -1:
                raise TaskFailed(
                    "SourceChanged",
                    f"{self._writes[ordinal].entry.path!r} changed at the source while it was sent",
                    hint="the next attempt takes it as it is then",
                )
            if length != self._asked[wanted]:
                raise RemoteProtocolError(f"block {number} of entry {ordinal} has the wrong length")
            total += length
        for wanted in named:
            del self._asked[wanted]
        if message.unpacked and not self._may_unpack:
            raise RemoteProtocolError("a frame is compressed, which was not agreed upon")
        if total != (message.unpacked or message.size) or len(payload) != message.size or not message.blocks:
            raise RemoteProtocolError("a frame of blocks does not have the size it announced")

    async def _store(self, take: trio.MemoryReceiveChannel[tuple[BlockResponseBin, bytes]]) -> None:
        async with take:
            async for message, payload in take:
                bad, complete = await self._in_thread(self._write_frame, message, payload)
                await self._repeat(bad)
                await self._settle(complete)
                self._unpaced += len(payload)
                if self._paced and self._unpaced >= PACE_BYTES:
                    self._unpaced = 0
                    with quiet(FLUSH_SECONDS):
                        await self._in_thread(sync_file_system, self._writer.root_fd)
                async with self._changed:
                    self._storing -= 1
                    self._in_window -= sum(
                        length for ordinal, number, length in message.blocks if (ordinal, number) not in bad
                    )
                    self._changed.notify_all()

    def _write_frame(self, message: BlockResponseBin, payload: bytes) -> tuple[list[Wanted], list[int]]:
        """Verifies and writes the blocks of one frame; those that do not match, and files done."""
        bad: list[Wanted] = []
        complete: list[int] = []
        view = memoryview(unpack(payload, message.unpacked) if message.unpacked else payload)
        at = 0
        with Folders(self._writer.root_fd) as folders:
            for ordinal, number, length in message.blocks:
                content = view[at : at + length]
                at += length
                write = self._writes[ordinal]
                if not _matches(content, write, number):
                    bad.append((ordinal, number))
                elif block_count(write.entry.size) == 1:
                    self._writer.put(folders, write, content)
                elif self._writer.put_block(folders, self._partials[ordinal], number, content):
                    complete.append(ordinal)
        return bad, complete

    async def _repeat(self, bad: Sequence[Wanted]) -> None:
        """Asks once more for blocks that arrived damaged."""
        if not bad:
            return
        for wanted in bad:
            if wanted in self._repeated:
                path = self._writes[wanted[0]].entry.path
                raise TaskFailed(
                    "VerificationFailed",
                    f"block {wanted[1]} of {path!r} came twice with content that is not its digest's",
                    hint="the source may have changed while it was sent; the next attempt reads it anew",
                )
            self._repeated.add(wanted)
            self._asked[wanted] = block_length(self._writes[wanted[0]].entry.size, wanted[1])
        self.blocks_requested += len(bad)
        await self._channel.send(BlockRequest(task=self._task, blocks=tuple(bad)))

    async def _settle(self, complete: Sequence[int]) -> None:
        if complete:
            async with self._changed:
                for ordinal in complete:
                    del self._partials[ordinal]
                self._changed.notify_all()

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)


def _matches(content: bytes | bytearray | memoryview, write: Write, number: int) -> bool:
    return hashlib.sha256(content).digest() == block_digest(write.entry.blocks, number)
