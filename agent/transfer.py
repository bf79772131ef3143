"""Gets the blocks of the files to write: from the target itself where it can, else from the primary.

Three stages run at once: blocks are asked for as long as the window has room, answers are received,
and worker threads verify and write them. Blocks of which an earlier version of the file may hold the most
take a way of their own (`agent.refine`). So memory is bounded by the window, whatever the tree.
"""

import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import trio

from agent.answers import ANSWER_DEADLINE, receive
from agent.blocks import (
    FRAME_TARGET,
    MAX_REQUEST,
    SMALL_BLOCKS,
    WINDOW,
    block_count,
    block_length,
    is_milestone,
)
from agent.changes import Write
from agent.errors import RemoteProtocolError
from agent.failures import TaskFailed
from agent.filling import Filler, Wanted, take_chunk
from agent.folders import Folders
from agent.libc import sync_file_system
from agent.own_blocks import OwnBlocks
from agent.packing import unpack
from agent.pulse import FLUSH_SECONDS, quiet
from agent.refine import REFINERS, Refiner, Run, changed_at_source, choose
from agent.reuse import Sources
from agent.scan import WORKERS
from agent.staging import Partial
from agent.wire.bulk import PIECES, BlockDescriptions, BlockRequest, BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.messages import DEFLATE, AnyMessage
from agent.writer import Writer

LONGEST_PATIENCE = 3600.0
"""Seconds more that a primary may ask for, because it keeps to a bandwidth."""

MAX_PARTIAL = 128
"""Files of several blocks that are under way at once, each with an open descriptor. No request and no chunk
of `take_chunk` has more, so that none waits for blocks that it has not asked for itself."""

PACE_BYTES = 64 * 1024 * 1024
"""With durability `paced`, data goes to the disk each time this much was written."""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


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
        features: Collection[str] = (),
    ) -> None:
        self._channel = channel
        self._task = task
        self._writer = writer
        self._writes = {ordinals[write.entry.path]: write for write in writes}
        self._sources = sources
        self._paced = paced
        self._may_unpack = DEFLATE in features
        self.deadline = ANSWER_DEADLINE + min(max(patience, 0.0), LONGEST_PATIENCE)
        self._partials: dict[int, Partial] = {}
        self._asked: dict[Wanted, int] = {}
        self._storing = 0
        self._repeated: set[Wanted] = set()
        self._in_window = 0
        self._unpaced = 0
        self._all_asked = False
        self._waiting = deque(self._writes)
        """Files that were not considered yet."""
        self._changed = trio.lowlevel.ParkingLot()
        """Where those wait who need another state. Only the loop's thread changes it, so there is no lock."""
        self._limiter = trio.CapacityLimiter(WORKERS)
        self._small_limiter = trio.CapacityLimiter(1)
        self._filler = Filler(writer, self._writes, sources, self._partials)
        # Weakly: in a cycle, all that a large tree took would stay until garbage is collected some day.
        me = weakref.proxy(self)
        self._own = OwnBlocks(
            me,
            self._filler,
            limiter=self._limiter,
            small_limiter=self._small_limiter,
            shifts=bool(sources.olds),
        )
        self._refines = PIECES in features and bool(sources.olds)
        self._refiner = Refiner(me, task, self._writes, self._filler, writer.root_fd, self._limiter)
        self.bytes_received = self.blocks_requested = 0

    async def run(self) -> None:
        send, take = trio.open_memory_channel[tuple[BlockResponseBin, bytes]](WORKERS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_for_all)
            nursery.start_soon(self._receive, send)
            for _ in range(WORKERS):
                nursery.start_soon(self._store, take.clone())
            take.close()

    @property
    def bytes_reused(self) -> int:
        return self._filler.reused

    @property
    def blocks_reused(self) -> int:
        return self._filler.blocks_reused

    # --- asking --------------------------------------------------------------------------------

    async def _ask_for_all(self) -> None:
        send, take = trio.open_memory_channel[list[Run]](0)
        async with trio.open_nursery() as nursery:
            for _ in range(REFINERS if self._refines else 0):
                nursery.start_soon(self._refine, take.clone())
            async with send, take:
                await self._go_through_files(send)
        self._all_asked = True
        self._changed.unpark_all()

    async def _refine(self, jobs: trio.MemoryReceiveChannel[list[Run]]) -> None:
        async with jobs:
            async for job in jobs:
                await self._refiner.work(job)

    async def _go_through_files(self, jobs: trio.MemorySendChannel[list[Run]]) -> None:
        requests = _Requests(self)
        while (chunk := await self.next_chunk()) is not None:
            if not chunk:
                await requests.flush()
                continue
            plan = await self._in_thread(self._filler.plan, chunk)
            if plan.local or (self._sources and plan.missing):
                # Copying takes its time, and may wait for files that wait for these very blocks.
                await requests.flush()
            missing = await self._own.fill(plan)
            refined: list[list[Run]] = []
            if self._refines:
                missing, refined = choose(missing, self._writes, self._filler)
            for job in refined:
                await self.begin_all(ordinal for ordinal, _, _ in job)
                await jobs.send(job)
            for ordinal, number in missing:
                await requests.add(ordinal, number)
        await requests.flush()

    async def ask(self, missing: Sequence[Wanted]) -> None:
        requests = _Requests(self)
        for ordinal, number in missing:
            await requests.add(ordinal, number)
        await requests.flush()

    def length_of(self, ordinal: int, number: int) -> int:
        return block_length(self._writes[ordinal].entry.size, number)

    async def take_room(self, length: int) -> None:
        while self._window_is_full(length):
            await self._changed.park()
        self._in_window += length

    def _window_is_full(self, length: int) -> bool:
        return self._in_window > 0 and self._in_window + length > WINDOW

    async def begin_all(self, ordinals: Iterable[int]) -> None:
        """Begins the files of several blocks among them."""
        files = [
            ordinal
            for ordinal in dict.fromkeys(ordinals)
            if block_count(self._writes[ordinal].entry.size) > 1 and ordinal not in self._partials
        ]
        while files:
            while (room := MAX_PARTIAL - len(self._partials)) <= 0:
                await self._changed.park()
            now, files = files[:room], files[room:]
            writes = [self._writes[ordinal] for ordinal in now]
            begun = await self._in_thread(lambda writes: list(map(self._writer.begin, writes)), writes)
            self._partials.update(zip(now, begun, strict=True))

    async def say(self, message: AnyMessage) -> None:
        await self._channel.send(message)
        self._changed.unpark_all()

    async def request(self, lengths: Mapping[Wanted, int]) -> None:
        """Asks for blocks, once there is room for all of them."""
        await self.begin_all(ordinal for ordinal, _ in lengths)
        await self.take_room(sum(lengths.values()))
        self._asked.update(lengths)
        self.blocks_requested += len(lengths)
        await self.say(BlockRequest(task=self._task, blocks=tuple(lengths)))

    async def next_chunk(self) -> list[int] | None:
        """Files to be considered in one call; none for now where it is empty, no more where it is None."""
        return take_chunk(self._waiting, self._writes) or None

    async def shift(self, ordinal: int, numbers: Sequence[int], shifts: Sequence[int]) -> list[int]:
        return await self._own.shift(ordinal, numbers, shifts)

    # --- answers -------------------------------------------------------------------------------

    async def _receive(self, send: trio.MemorySendChannel[tuple[BlockResponseBin, bytes]]) -> None:
        async with send:
            while await self._expecting():
                message, payload = await receive(self._channel, deadline=self.deadline)
                if isinstance(message, BlockDescriptions) and self._refines:
                    self._refiner.take_descriptions(message)
                    continue
                if not isinstance(message, BlockResponseBin) or payload is None:
                    raise RemoteProtocolError(f"blocks were expected and {type(message).__name__} came")
                if message.ranges:
                    freed = self._refiner.take_ranges(message, payload)
                    self.bytes_received += freed
                    self._in_window -= freed
                    self._changed.unpark_all()
                    continue
                self._check_answer(message, payload)
                self.bytes_received += len(payload)
                self._storing += 1
                await send.send((message, payload))

    async def _expecting(self) -> bool:
        """Waits until an answer is due; False once all blocks were asked for, have come and are good."""
        while not self._due and (self._storing or not self._all_asked):
            await self._changed.park()
        return self._due

    @property
    def _due(self) -> bool:
        return bool(self._asked) or self._refiner.pending

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
                raise changed_at_source(self._writes[ordinal].entry.path)
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
                limiter = self._small_limiter if len(message.blocks) > SMALL_BLOCKS else self._limiter
                bad, complete = await trio.to_thread.run_sync(
                    self._write_frame, message, payload, limiter=limiter
                )
                await self._repeat(bad)
                await self.settle(complete)
                self._unpaced += len(payload)
                if self._paced and self._unpaced >= PACE_BYTES:
                    self._unpaced = 0
                    with quiet(FLUSH_SECONDS):
                        await self._in_thread(sync_file_system, self._writer.root_fd)
                self._storing -= 1
                self._in_window -= sum(
                    length for ordinal, number, length in message.blocks if (ordinal, number) not in bad
                )
                self._changed.unpark_all()

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
                if not self._filler.matches(ordinal, number, content):
                    bad.append((ordinal, number))
                elif self._filler.put(folders, ordinal, number, content):
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

    async def settle(self, complete: Sequence[int]) -> None:
        for ordinal in complete:
            del self._partials[ordinal]
        if complete:
            self._changed.unpark_all()

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)


class _Requests:
    """Packs wanted blocks into requests, each of which the primary answers with one frame.

    Where one ends depends on nothing but the blocks: other agents that want the same ask for the same then,
    however fast each of them is, and the primary reads and compresses it once.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._lengths: dict[Wanted, int] = {}
        self._bytes = 0

    async def add(self, ordinal: int, number: int) -> None:
        length = self._transfer.length_of(ordinal, number)
        full = self._bytes + length > FRAME_TARGET or len(self._lengths) == MAX_REQUEST
        if full or is_milestone(ordinal, number):
            await self.flush()
        self._lengths[ordinal, number] = length
        self._bytes += length

    async def flush(self) -> None:
        if self._lengths:
            lengths, self._lengths, self._bytes = self._lengths, {}, 0
            await self._transfer.request(lengths)
