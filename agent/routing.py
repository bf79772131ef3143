"""A session: its two connections, and the way of each message to the task it belongs to.

Each task has a channel with an inbox bounded in bytes. The two sides differ in what a full inbox
means. At the agent the reader waits, and so does the primary. At the primary the reader never waits,
because an agent that may be waiting for us must always be able to speak: what an agent may have
outstanding is bounded, and more is an error. So the two never wait for each other.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from agent.errors import LocalProtocolError, RemoteProtocolError, TransferFailed, TrueupError
from agent.link import Link, LinkLost
from agent.wire.bulk import BlockRequest, DescribeBlocks
from agent.wire.connection import ON_CONTROL, Received, Role
from agent.wire.messages import (
    PROTOCOL_VERSIONS,
    AnyMessage,
    Cancel,
    Hello,
    HelloAck,
    Notice,
    PairAck,
    PairRequest,
    Ping,
    Pong,
    SyncStart,
    Work,
)

INBOX_LIMIT = {Role.AGENT: 64 * 1024 * 1024, Role.PRIMARY: 16 * 1024 * 1024}
"""Bytes of messages that wait for one task. An agent's holds two credit windows of 32 MiB."""


@dataclass(slots=True)
class Traffic:
    """What one task sent and received on both connections: bytes of frames, their lengths included."""

    sent: int = 0
    received: int = 0
    blocks: int = 0
    """Blocks that were asked for."""


def task_of(message: AnyMessage) -> str | None:
    """The id of the task that a message belongs to; None for those that belong to the connection."""
    if isinstance(message, Work):
        return message.id
    if isinstance(message, PairRequest | PairAck | Hello | HelloAck | Ping | Pong | Notice):
        return None
    return message.task


class TaskChannel:
    """One task's end of a session: an `agent.wire.channel.Channel`."""

    def __init__(self, session: "Session", task: str, limit: int) -> None:
        self.task = task
        self.traffic = Traffic()
        self._session = session
        self._limit = limit
        self._inbox: deque[Received] = deque()
        self._waiting = 0  # bytes in the inbox
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._ended: TrueupError | None = None
        self.asked = False
        """Whether this end has said anything on the bulk connection."""

    async def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None:
        """See `Channel.send`."""
        if task_of(message) != self.task:
            raise LocalProtocolError(f"a {type(message).__name__} of another task on this task's channel")
        if self._ended is not None:
            raise TransferFailed(str(self._ended))
        control = isinstance(message, ON_CONTROL)
        link = self._session.control if control else self._session.bulk
        self.asked = self.asked or not control
        try:
            self.traffic.sent += await link.send(message, payload or None)
        except LinkLost as error:
            raise TransferFailed(str(error)) from None

    async def receive(self) -> tuple[AnyMessage, bytes | None]:
        """See `Channel.receive`. What arrived before the end is still given."""
        while not self._inbox:
            if self._ended is not None:
                raise TransferFailed(str(self._ended))
            await self._readers.park()
        received = self._inbox.popleft()
        self._waiting -= received.size
        self._writers.unpark()
        return received.message, received.payload

    # --- the session's side --------------------------------------------------------------------

    def fits(self, received: Received) -> bool:
        """Whether there is room; an empty inbox takes any one message."""
        return not self._inbox or self._waiting + received.size <= self._limit

    def put(self, received: Received) -> None:
        self.traffic.received += received.size
        if isinstance(received.message, BlockRequest):
            self.traffic.blocks += len(received.message.blocks)
        if self._ended is None:
            self._inbox.append(received)
            self._waiting += received.size
            self._readers.unpark()

    async def wait_room(self, received: Received) -> None:
        while self._ended is None and not self.fits(received):
            await self._writers.park()

    def end(self, error: TrueupError) -> None:
        if self._ended is None:
            self._ended = error
        self._readers.unpark_all()
        self._writers.unpark_all()


TaskHandler = Callable[[Work, TaskChannel], None]
CancelHandler = Callable[[Cancel], None]
NoticeHandler = Callable[[Notice], None]


class Session:
    """Two authenticated links of one node, from the moment both stand to the moment one of them ends.

    The agent passes what to do with a `Work` and a `Cancel`, both what to do with a `Notice`; none may block.
    """

    def __init__(
        self,
        role: Role,
        control: Link,
        bulk: Link,
        *,
        on_task: TaskHandler | None = None,
        on_cancel: CancelHandler | None = None,
        on_notice: NoticeHandler = lambda _notice: None,
        protocol: int = PROTOCOL_VERSIONS[0],
    ) -> None:
        self.role = role
        self.protocol = protocol
        """The version that both ends agreed upon."""
        self.control = control
        self.bulk = bulk
        self._on_task = on_task
        self._on_cancel = on_cancel
        self._on_notice = on_notice
        self._channels: dict[str, TaskChannel] = {}
        self._lost: TrueupError | None = None

    def open(self, task: str) -> TaskChannel:
        """A channel for a task; LocalProtocolError if its id is in use."""
        if task in self._channels:
            raise LocalProtocolError(f"the task {task} is already under way")
        channel = TaskChannel(self, task, INBOX_LIMIT[self.role])
        if self._lost is not None:
            channel.end(self._lost)
        else:
            self._channels[task] = channel
        return channel

    def close(self, channel: TaskChannel) -> None:
        """The task has ended; what still arrives for it is dropped."""
        channel.end(LinkLost("the task has ended"))
        if self._channels.get(channel.task) is channel:
            del self._channels[channel.task]

    @property
    def lost(self) -> TrueupError | None:
        """Why the session ended; None while it stands."""
        return self._lost

    def end(self, error: TrueupError | None = None) -> None:
        """Close both connections; `run` returns."""
        self._lost = self._lost or error
        self.control.end(error)
        self.bulk.end(error)

    async def aclose(self) -> None:
        """Close the streams, also where `run` never was."""
        await self.control.aclose()
        await self.bulk.aclose()

    async def run(self) -> TrueupError:
        """Carry messages until one of the connections ends; gives the reason."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_link, self.control)
                nursery.start_soon(self._run_link, self.bulk)
        finally:
            error = self._lost = self._lost or LinkLost("the session was closed")
            for channel in self._channels.values():
                channel.end(error)
            self._channels.clear()
        return error

    async def _run_link(self, link: Link) -> None:
        try:
            await link.run(self._deliver)
        except TrueupError as error:
            self.end(error)

    async def _deliver(self, received: Received) -> None:
        message = received.message
        if self._on_task is not None and isinstance(message, Work):
            if message.id not in self._channels:
                channel = self.open(message.id)
                channel.traffic.received += received.size
                self._on_task(message, channel)
            return
        if self._on_cancel is not None and isinstance(message, Cancel):
            self._on_cancel(message)
            return
        if isinstance(message, Notice):
            self._on_notice(message)
            return
        task = task_of(message)
        owner = self._channels.get(task) if task is not None else None
        if owner is None:
            # A task that has ended, or one of another node: it gets nothing, and need not wait for it.
            if isinstance(message, SyncStart | DescribeBlocks | BlockRequest):
                self.control.offer(Cancel(task=message.task, reason="there is no such task"))
            return
        if self.role is Role.AGENT and not owner.asked:
            # A primary that fills the inboxes of tasks that wait would have all of our memory.
            raise RemoteProtocolError("the primary sent what no task has asked for")
        if not owner.fits(received):
            if self.role is Role.PRIMARY:
                raise RemoteProtocolError("the peer has more requests outstanding than are allowed")
            await owner.wait_room(received)
        owner.put(received)
