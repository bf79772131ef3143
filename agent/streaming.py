"""A first copy of a tree that the primary still hashes: its blocks are asked for as its index comes.

Until the whole index is there and has the tree's digest, nothing leaves staging. Index and blocks come over
one channel, so one reader hands each to whom it concerns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from msgspec.structs import replace

from agent.answers import receive
from agent.changes import Write
from agent.errors import TransferFailed
from agent.failures import TaskFailed, single
from agent.features import agreed, owners_of
from agent.fetch import Index, Taking
from agent.filling import take_chunk
from agent.look import Scope
from agent.pulse import Measured, beat, enter
from agent.reuse import Sources
from agent.room import free_bytes
from agent.rules import AgentRules
from agent.transfer import Transfer
from agent.wire.channel import Channel
from agent.wire.messages import (
    NO_TIMES,
    STREAM,
    AnyMessage,
    Cancel,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    SyncStart,
    Task,
)
from agent.writer import Writer

INDEX_SECONDS = 24 * 3600.0
"""How long a task waits for the whole index while the primary hashes, whatever that says meanwhile. The next
attempt begins once the whole tree is known, and holds nothing for that time."""

_Message = tuple[AnyMessage, bytes | None]


def may_stream(task: Task) -> bool:
    """Whether a task is offered as a stream, and is one that this agent takes so.

    Files are made before the tree is known, so their times must be this host's, and their owners the agent's.
    """
    return STREAM in task.features and NO_TIMES in task.features and not owners_of(task)


@dataclass(frozen=True, slots=True)
class Streamed:
    """All of an index, checked, and its tree; its files are in staging, complete and verified."""

    index: Index
    tree: bytes
    transfer: "StreamedTransfer | None"
    """None where there was no room for the contents while their number of bytes was all that was known."""


class StreamedTransfer(Transfer):
    """A transfer that is told one after the other of the files to complete; each gets the time `now_ns`."""

    def __init__(self, channel: Channel, task: Task, writer: Writer, now_ns: int) -> None:
        super().__init__(
            channel,
            task.id,
            writer,
            (),
            {},
            Sources(),
            paced=task.durability == "paced",
            patience=task.patience,
            features=agreed(task),
        )
        self._now_ns = now_ns
        self._waits = False
        self._all_told = False
        self._news = trio.Event()
        self._next = 0

    def tell(self, entries: Sequence[Entry]) -> None:
        """The next entries of the index. Never waits: who reads the index must get on, or no block comes."""
        for ordinal, entry in enumerate(entries, self._next):
            if entry.kind == "file":
                self._writes[ordinal] = Write(replace(entry, mtime_ns=self._now_ns))
                self._waiting.append(ordinal)
        self._next += len(entries)
        self._wake()

    def told_all(self) -> None:
        self._all_told = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def measure(self) -> Measured:
        return Measured(bytes_done=self.bytes_received + self.bytes_reused)

    async def next_chunk(self) -> list[int] | None:
        """An empty one first, where the rest is not known yet."""
        if not self._waiting and not self._all_told:
            if not self._waits:
                self._waits = True
                return []
            await self._news.wait()
        self._waits = False
        chunk = take_chunk(self._waiting, self._writes)
        return chunk or (None if self._all_told else [])


async def take_streamed(
    channel: Channel, task: Task, rules: AgentRules, scope: Scope, writer: Writer, now_ns: int
) -> Streamed:
    """Asks for the index of a tree as far as it is known, and puts its files together in staging meanwhile.

    `writer` holds back all that it completes; files get the time `now_ns`. What is sent is checked as in
    `fetch_index`, and raises the same; besides, all that a transfer raises.
    """
    to_index, of_index = trio.open_memory_channel[_Message](0)
    to_blocks, of_blocks = trio.open_memory_channel[_Message](0)
    transfer = StreamedTransfer(_Lane(channel, of_blocks), task, writer, now_ns)
    lane = _Lane(channel, of_index)
    taking = _TakingStreamed(lane, task, rules, scope, transfer, writer.root_fd)
    await channel.send(SyncStart(task=task.id, features=(*agreed(task), STREAM)))
    enter("copy", transfer.measure)
    await trio.to_thread.run_sync(writer.open_staging)
    try:
        async with trio.open_nursery() as reading:
            reading.start_soon(_read, channel, to_index, to_blocks)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transfer.run)
                finish = await taking.take(None)
                index = await trio.to_thread.run_sync(finish)
                transfer.told_all()
            reading.cancel_scope.cancel()
    except BaseException as error:
        cause = single(error) if isinstance(error, BaseExceptionGroup) else error
        # The next attempt takes from there what came already.
        writer.keeps_staging = isinstance(cause, TransferFailed | trio.Cancelled)
        raise
    return Streamed(index, taking.tree, transfer if taking.has_room else None)


class _Lane:
    """What of a channel concerns one of those who listen to it. Implements `Channel`."""

    def __init__(self, channel: Channel, inbox: trio.MemoryReceiveChannel[_Message]) -> None:
        self._channel = channel
        self._inbox = inbox

    async def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None:
        await self._channel.send(message, payload)

    async def receive(self) -> _Message:
        return await self._inbox.receive()


async def _read(
    channel: Channel, index: trio.MemorySendChannel[_Message], blocks: trio.MemorySendChannel[_Message]
) -> None:
    """Hands on what comes. Those who wait for it have their deadlines."""
    while True:
        message, payload = await channel.receive()
        if isinstance(message, Cancel):
            raise TaskFailed("Cancelled", message.reason or "the primary called the task off")
        of_index = isinstance(message, IndexBegin | IndexFile | IndexEnd)
        await (index if of_index else blocks).send((message, payload))


class _TakingStreamed(Taking):
    """Takes an index whose tree is known at its end only, and tells a transfer of its entries."""

    def __init__(
        self,
        channel: Channel,
        task: Task,
        rules: AgentRules,
        scope: Scope,
        transfer: StreamedTransfer,
        root_fd: int,
    ) -> None:
        super().__init__(channel, task, rules, scope.ignore, scope.forbidden)
        self._transfer = transfer
        self._root_fd = root_fd
        self._ends_at = trio.current_time() + INDEX_SECONDS
        self.has_room = True
        self.tree = b""

    async def receive(self) -> AnyMessage:
        with trio.move_on_at(self._ends_at):
            return await self._receive()
        raise TransferFailed(f"the primary has not told of a whole tree for {INDEX_SECONDS / 3600:.0f} h")

    async def _receive(self) -> AnyMessage:
        message, _ = await receive(self._channel, deadline=self._transfer.deadline)
        if isinstance(message, IndexBegin):
            self.has_room = message.bytes <= await trio.to_thread.run_sync(free_bytes, self._root_fd)
        while isinstance(message, IndexFile) and message.task == self._task.id and not message.entries:
            beat()  # the primary is at a large file
            message, _ = await receive(self._channel, deadline=self._transfer.deadline)
        return message

    def took(self, entries: Sequence[Entry]) -> None:
        if self.has_room:
            self._transfer.tell(entries)

    def check_tree(self, tree: bytes) -> None:
        self.tree = tree
