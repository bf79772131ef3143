"""The primary's end of a connection that a worker process has: a stream of what was and will be plain text.

What is in shared memory is not copied: the worker is told where it is, and encrypts it from there. As of a
socket, `send_all` waits while the peer takes nothing; of a large piece it waits until all of it is with the
kernel, so that how fast a line is and whether it stands still is seen here as anywhere.
"""

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

import trio

from agent.link import LinkLost
from agent.spread import LARGE
from reconciler.sync import worker_wire as wire
from reconciler.sync.shared_memory import place_of

_GONE = "the worker process that carried it has ended"


class HandedStream(trio.abc.Stream):
    """As `TLSStream`. `transport` is the TCP connection itself, which this end closes whatever the worker
    does; `closed` is called once."""

    def __init__(
        self,
        transport: trio.SocketStream,
        down: socket.socket,
        up: socket.socket,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._down = trio.socket.from_stdlib_socket(down)
        self._up = trio.SocketStream(trio.socket.from_stdlib_socket(up))
        self._closed: Callable[[], None] | None = closed
        self.peer_certificate: bytes | None = None
        """As of `TLSStream`."""
        self._sent = self._acknowledged = 0
        self._unasked = 0
        """Bytes that were sent since an acknowledgement was asked for."""
        self._end: wire.Packet | None = None
        """What the worker said of the connection's end."""
        self._torn = False

    async def do_handshake(self) -> None:
        """Waits for the worker's. Raises BrokenResourceError, caused by the SSLError, if either side refuses,
        LinkLost if the worker has ended."""
        try:
            packet = await wire.receive(self._down, wire.MOST_PACKET, 0)
        except OSError:
            packet = wire.Packet(b"", b"", [])
        if packet.kind == wire.REFUSED:
            raise trio.BrokenResourceError("the TLS handshake failed") from _ssl_error(packet.content)
        if packet.kind != wire.CERTIFICATE:
            raise LinkLost(_GONE)
        self.peer_certificate = packet.content or None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """All that has arrived, up to `max_bytes`; empty at the end, whether it was announced or not."""
        # An agent sends little, and a buffer of the size it may have would be made for each of its messages.
        try:
            data = await self._up.receive_some(min(max_bytes or wire.PIECE, wire.PIECE))
        except trio.BrokenResourceError:
            data = b""
        if data:
            return data
        self._drain()
        if self._end is None or self._end.kind != wire.END:
            raise self._broken()
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Where it is cancelled on the way, nothing more can be sent."""
        if self._torn:
            raise trio.BrokenResourceError("an earlier message was sent in part only")
        view = memoryview(data)
        self._torn = True
        try:
            place = place_of(view)
            if place is not None:
                told = wire.SHARED + wire.RANGE.pack(place.offset, view.nbytes)
                await self._send([told], view.nbytes, [place.fd])
            else:
                await self._send_copies(view)
        except OSError:
            raise self._broken() from None
        self._torn = False
        if view.nbytes >= LARGE:
            await self._wait_acknowledged(0)

    async def _send_copies(self, view: memoryview) -> None:
        for start in range(0, len(view), wire.PIECE):
            piece = view[start : start + wire.PIECE]
            asks = self._unasked + len(piece) >= wire.PIECE or start + wire.PIECE >= len(view) >= LARGE
            await self._wait_acknowledged(wire.UNACKNOWLEDGED - len(piece))
            await self._send([wire.DATA_TO_ACK if asks else wire.DATA, piece], len(piece), [])
            self._unasked = 0 if asks else self._unasked + len(piece)

    async def _send(self, parts: list[bytes | memoryview], size: int, fds: list[int]) -> None:
        await self._down.sendmsg(parts, wire.with_descriptors(fds))
        self._sent += size

    async def flush(self) -> None:
        """Until all that was sent is with the kernel."""
        try:
            await self._send([wire.DATA_TO_ACK], 0, [])
        except OSError:
            raise self._broken() from None
        await self._wait_acknowledged(0)

    async def _wait_acknowledged(self, most: int) -> None:
        """Until at most so many bytes are under way to the kernel."""
        while self._sent - self._acknowledged > most:
            try:
                packet = await wire.receive(self._down, wire.MOST_PACKET, 0)
            except OSError:
                packet = wire.Packet(b"", b"", [])
            if not packet.kind:
                raise self._broken()
            self._heed(packet)

    def _drain(self) -> None:
        """Takes what the worker has said by now."""
        while True:
            try:
                data = os.read(self._down.fileno(), wire.MOST_PACKET)
            except OSError:  # nothing now, or nothing ever
                return
            if not data:
                return
            self._heed(wire.Packet(data[:1], data[1:], []))

    def _heed(self, packet: wire.Packet) -> None:
        if packet.kind == wire.ACK:
            (self._acknowledged,) = wire.COUNT.unpack(packet.content)
        elif self._end is None:
            self._end = packet

    def _broken(self) -> trio.BrokenResourceError:
        self._drain()
        if self._end is None or self._end.kind != wire.BROKEN:
            return trio.BrokenResourceError(_GONE)
        error = trio.BrokenResourceError("the TLS connection broke")
        error.__cause__ = _ssl_error(self._end.content)
        return error

    async def wait_send_all_might_not_block(self) -> None:
        await self._wait_acknowledged(wire.UNACKNOWLEDGED - wire.PIECE)

    async def aclose(self) -> None:
        """At once, also where the worker does nothing."""
        if self._closed is not None:
            closed, self._closed = self._closed, None
            self._down.close()
            self._up.socket.close()
            with suppress(OSError):  # the peer, or the worker, was first
                self._transport.socket.shutdown(socket.SHUT_RDWR)
            self._transport.socket.close()
            closed()
        await trio.lowlevel.checkpoint()


def _ssl_error(content: bytes) -> ssl.SSLError | None:
    reason, detail = wire.parse_refusal(content)
    if not reason:
        return None
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, reason)
    error.reason = reason
    error.verify_message = detail  # type: ignore[attr-defined]
    return error
