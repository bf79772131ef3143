"""A worker process: the TLS end of connections that the primary accepted and judges. It listens nowhere.

`python -m reconciler.sync.tls_worker FD TLS_DIRECTORY`, where FD is its end of the control socket. It ends
when that is closed, as when the primary is killed. See `worker_wire` for what is said.
"""

import os
import signal
import socket
import ssl
import sys
from collections import deque
from pathlib import Path

import trio

from agent.contexts import session_server_context
from agent.spread import Spread
from agent.tlsstream import TLSStream, tls_problem
from reconciler.hardening import forbid_core_dumps
from reconciler.sync import worker_wire as wire
from reconciler.sync.worker_memory import BulkMemory


class Worker:
    """`directory` has the server's certificate and key."""

    def __init__(self, control: trio.socket.SocketType, directory: Path) -> None:
        self._control = control
        self._directory = directory
        self._context: ssl.SSLContext | None = None
        self._memory = BulkMemory()

    async def run(self) -> None:
        """Until the primary has gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._memory.run)
            while (packet := await _next(self._control, 1, 3)).kind:
                if packet.kind == wire.ANCHORS:
                    await self._renew(packet.fds[0])
                elif packet.kind == wire.CONNECTION:
                    nursery.start_soon(self._carry, packet.fds)
                elif packet.kind == wire.PING:
                    await self._control.send(wire.PING)
            nursery.cancel_scope.cancel()

    async def _renew(self, fd: int) -> None:
        with os.fdopen(fd, "rb") as file:
            anchors = file.read()
        given = [anchors] if anchors else []
        self._context = await trio.to_thread.run_sync(session_server_context, self._directory, given)

    async def _carry(self, fds: list[int]) -> None:
        """One connection to its end. No mistake in it ends the others."""
        transport, down, up = (trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) for fd in fds)
        try:
            with transport, down, up:
                assert self._context is not None
                # No threads beside the loop: there are as many workers as are worth their while.
                stream = TLSStream(
                    trio.SocketStream(transport), self._context, server_side=True, spread=Spread(1)
                )
                await _Carried(stream, down, trio.SocketStream(up), self._memory).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return  # the primary has closed it, or is told by the end of `up`
        except Exception as error:
            await self._tell(error)

    async def _tell(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        try:
            await self._control.send(wire.MISTAKE + f"{type(error).__name__}: {error}".encode()[:1000])
        except OSError:
            return


class _Carried:
    """A connection: what comes down is encrypted and sent, what arrives is decrypted and goes up."""

    def __init__(
        self, stream: TLSStream, down: trio.socket.SocketType, up: trio.SocketStream, memory: BulkMemory
    ) -> None:
        self._stream = stream
        self._down = down
        self._up = up
        self._memory = memory
        self._queue: deque[wire.Packet] = deque()
        """What is to be sent. Bounded, as the primary has no more under way than it may."""
        self._queued = 0
        self._more = trio.Event()
        self._sent = 0

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                # From the beginning, so that the primary's end of it is seen whatever else goes on.
                nursery.start_soon(self._take, nursery.cancel_scope)
                if await self._shake_hands():
                    nursery.start_soon(self._receive, nursery.cancel_scope)
                    await self._send_all()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            mistakes = group.split((trio.BrokenResourceError, trio.ClosedResourceError, OSError))[1]
            if mistakes is not None:
                raise mistakes from None
        finally:
            for packet in self._queue:
                _close(packet.fds)

    async def _shake_hands(self) -> bool:
        try:
            await self._stream.do_handshake()
        except trio.BrokenResourceError as error:
            await self._down.send(wire.REFUSED + wire.refusal(*tls_problem(error)))
            return False
        await self._down.send(wire.CERTIFICATE + (self._stream.peer_certificate or b""))
        return True

    async def _take(self, scope: trio.CancelScope) -> None:
        while (packet := await _next(self._down, wire.PIECE + 1, 1)).kind:
            self._queue.append(packet)
            self._queued += len(packet.content)
            if self._queued > wire.UNACKNOWLEDGED + wire.PIECE:
                break  # it may send no more than that
            self._more.set()
        scope.cancel()

    async def _send_all(self) -> None:
        while True:
            while not self._queue:
                self._more = trio.Event()
                await self._more.wait()
            packet = self._queue.popleft()
            try:
                self._sent += await self._send(packet)
            except trio.BrokenResourceError as error:
                await self._say(wire.BROKEN + tls_problem(error)[0].encode())
                return
            finally:
                self._queued -= len(packet.content)
                _close(packet.fds)
            if packet.kind != wire.DATA:
                await self._say(wire.ACK + wire.COUNT.pack(self._sent))

    async def _send(self, packet: wire.Packet) -> int:
        if packet.kind != wire.SHARED:
            if packet.content:
                await self._stream.send_all(packet.content)
            return len(packet.content)
        offset, size = wire.RANGE.unpack(packet.content)
        await self._stream.send_all(self._memory.view(packet.fds[0], offset, size))
        return int(size)

    async def _receive(self, scope: trio.CancelScope) -> None:
        """At its end the primary is told why, and may go on to send until it closes the connection."""
        try:
            while data := await self._stream.receive_some():
                await self._up.send_all(data)
            await self._say(wire.END)
        except trio.BrokenResourceError as error:
            await self._say(wire.BROKEN + tls_problem(error)[0].encode())
            scope.cancel()
        await self._up.aclose()

    async def _say(self, packet: bytes) -> None:
        try:
            await self._down.send(packet)
        except OSError:
            raise trio.BrokenResourceError("the primary has closed the connection") from None


async def _next(sock: trio.socket.SocketType, most: int, fds: int) -> wire.Packet:
    try:
        return await wire.receive(sock, most, fds)
    except ConnectionError:
        return wire.Packet(b"", b"", [])  # it closed without having read everything


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


async def main(fd: int, directory: Path) -> None:
    with trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) as control:
        await Worker(control, directory).run()


if __name__ == "__main__":
    # The key of the primary's certificate will be in its memory.
    forbid_core_dumps()
    # Both reach a whole group of processes. The primary takes its leave of agents first, and then closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
