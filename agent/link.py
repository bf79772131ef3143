"""One connection at work: bytes between a stream and the state machine, keepalive, and its end.

A link has a task that reads, one that writes and one that watches. Only the writer touches the
stream's sending half, so that a cancelled sender never leaves half a frame behind. A peer is held to
be gone when nothing at all was heard of it for a while; pings see to it that a living one is heard.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from agent.errors import ProtocolError, TrueupError
from agent.tlsstream import tls_alert
from agent.wire.connection import Connection, Received
from agent.wire.frames import Buffer
from agent.wire.messages import AnyMessage, Ping, Pong

CONTROL_BACKLOG = 32

READ_SIZE = 1024 * 1024
"""Bytes asked of the stream at once: each read costs a turn of the event loop, some 80 us. 64 KiB took a
receiver of bulk data twice the CPU, 256 KiB a fifth more."""

_WRITE_SIZE = 1024 * 1024
"""A payload is encrypted in pieces of this size: the ciphertext of a piece is in memory at once."""

_CLOSE_DEADLINE = 1.0


class LinkLost(TrueupError):
    """The connection is gone, or was never there: unreachable, closed, silent."""

    reason = "ConnectionLost"
    retryable = True


@dataclass(frozen=True, slots=True)
class Timing:
    """How a link finds out that its peer is gone; seconds."""

    ping: float = 15.0
    """Something is sent at least this often."""
    silence: float = 45.0
    """The peer is gone when nothing was heard for this long."""
    stall: float = 45.0
    """The peer is gone when it took nothing of what is being written for this long."""


CONTROL_TIMING = Timing()
BULK_TIMING = Timing(stall=600.0)
"""A receiver with a slow disk may let bulk data wait; that it lives is seen on its control connection."""

Deliver = Callable[[Received], Awaitable[None]]


class Link:
    """A stream and its state machine. `read` and `write` serve the first exchange, `run` all that follows."""

    def __init__(
        self, stream: trio.abc.Stream, connection: Connection, *, timing: Timing, backlog: int = 0
    ) -> None:
        self.stream = stream
        self.connection = connection
        self._timing = timing
        # No backlog on bulk: a sender waits until the writer is free, then prepares its next message
        # while that one is written. Control has one, so that `offer` finds room.
        self._outbox, self._queue = trio.open_memory_channel[list[Buffer]](backlog)
        self._sequence = 0
        self._pongs: dict[int, trio.Event] = {}
        """Those that somebody waits for, by the number of their ping."""
        self._last_heard = self._last_sent = self._progress = 0.0
        self._hearing = self._writing = self._ended = False
        self._lost: TrueupError | None = None
        self._scope = trio.CancelScope()

    # --- the first exchange, one message each way ----------------------------------------------

    async def write(self, message: AnyMessage) -> None:
        """Send one message before `run`. Raises LinkLost; deadlines are the caller's."""
        try:
            for buffer in self.connection.send(message):
                await self.stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise lost_by(error) from None

    async def read(self) -> AnyMessage:
        """Receive one message before `run`. Raises LinkLost, RemoteProtocolError."""
        data: bytes | bytearray = b""
        while True:
            for received in self.connection.receive_data(data):
                return received.message
            try:
                data = await self.stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise lost_by(error) from None
            if not data:
                raise LinkLost("the peer closed the connection")

    # --- the session ---------------------------------------------------------------------------

    async def send(self, message: AnyMessage, payload: Buffer | None = None) -> int:
        """Hand a message to the writer and give the bytes it takes; waits while the writer is busy.

        Raises LinkLost once the link has ended, LocalProtocolError for what may not be sent.
        """
        if self._ended:
            raise LinkLost(str(self._lost or "the connection is closed"))
        buffers = self.connection.send(message, payload)
        try:
            await self._outbox.send(buffers)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkLost(str(self._lost or "the connection is closed")) from None
        return sum(map(len, buffers))

    def offer(self, message: AnyMessage) -> bool:
        """Send a message if there is room this moment; never waits."""
        if self._ended:
            return False
        try:
            self._outbox.send_nowait(self.connection.send(message))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def ping(self) -> float:
        """The seconds until the peer has answered a ping; deadlines are the caller's. Raises LinkLost."""
        self._sequence += 1
        number, heard = self._sequence, trio.Event()
        self._pongs[number] = heard
        began = trio.current_time()
        try:
            await self.send(Ping(sequence=number))
            await heard.wait()
        finally:
            del self._pongs[number]
        if self._ended:
            raise LinkLost(str(self._lost or "the connection is closed"))
        return trio.current_time() - began

    async def run(self, deliver: Deliver) -> None:
        """Carry messages until the link ends, and say why by raising LinkLost or RemoteProtocolError.

        `deliver` is awaited for every message but pings; while it waits, the peer waits too.
        The stream is closed in any case.
        """
        self._last_heard = self._last_sent = self._progress = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ending, self._write_all)
                    nursery.start_soon(self._ending, self._watch)
                    await self._ending(lambda: self._read_all(deliver))
        finally:
            self._ended = True
            self._outbox.close()
            self._queue.close()
            for heard in self._pongs.values():
                heard.set()
            await self.aclose()
        raise self._lost or LinkLost("the connection was closed")

    def end(self, error: TrueupError | None = None) -> None:
        """Let `run` end; the first reason given is the one it raises."""
        self._lost = self._lost or error
        self._ended = True
        self._scope.cancel()

    async def aclose(self) -> None:
        """Close the stream: politely if the peer takes it within a second."""
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_DEADLINE, shield=True) as scope:
            try:
                await self.stream.aclose()
            except trio.BrokenResourceError:
                return
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self.stream)

    # --- inside --------------------------------------------------------------------------------

    async def _ending(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one of the link's tasks; its end is the link's end."""
        try:
            await work()
        except (LinkLost, ProtocolError) as error:
            self.end(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.end(lost_by(error))

    async def _read_all(self, deliver: Deliver) -> None:
        while True:
            self._hearing = True
            data = await self.stream.receive_some(READ_SIZE)
            self._hearing = False
            if not data:
                self.connection.receive_eof()
                raise LinkLost("the peer closed the connection")
            for received in self.connection.receive_data(data):
                if isinstance(received.message, Ping):
                    # When the writer is busy, the peer hears us anyway.
                    self.offer(Pong(sequence=received.message.sequence))
                elif not isinstance(received.message, Pong):
                    await deliver(received)
                elif (heard := self._pongs.get(received.message.sequence)) is not None:
                    heard.set()
                # An idle connection must not go on holding the last megabyte that came over it.
                del received
            del data
            self._last_heard = trio.current_time()

    async def _write_all(self) -> None:
        async for buffers in self._queue:
            self._progress = trio.current_time()
            self._writing = True
            for buffer in buffers:
                view = memoryview(buffer)
                for start in range(0, len(view), _WRITE_SIZE):
                    await self.stream.send_all(view[start : start + _WRITE_SIZE])
                    self._progress = trio.current_time()
                del view, buffer
            del buffers
            self._writing = False
            self._last_sent = self._progress

    async def _watch(self) -> None:
        timing = self._timing
        while True:
            now = trio.current_time()
            if self._hearing and now - self._last_heard >= timing.silence:
                raise LinkLost(f"nothing was heard of the peer for {timing.silence:g} seconds")
            if self._writing and now - self._progress >= timing.stall:
                raise LinkLost(f"the peer took nothing for {timing.stall:g} seconds")
            if not self._writing and now - self._last_sent >= timing.ping:
                self._sequence += 1
                self.offer(Ping(sequence=self._sequence))
                self._last_sent = now
            next_check = [self._last_sent + timing.ping if not self._writing else now + timing.ping]
            if self._hearing:
                next_check.append(self._last_heard + timing.silence)
            if self._writing:
                next_check.append(self._progress + timing.stall)
            await trio.sleep_until(min(next_check))


def lost_by(error: BaseException) -> LinkLost:
    """What a stream's exception means to a person."""
    alert = tls_alert(error)
    if alert in {"UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "CERTIFICATE_REQUIRED"}:
        return LinkLost("the peer does not accept our certificate")
    if alert == "CERTIFICATE_EXPIRED":
        return LinkLost("the peer says that our certificate has expired")
    if alert is not None:
        return LinkLost(f"the peer ended the TLS connection ({alert.lower().replace('_', ' ')})")
    return LinkLost("the connection broke")
