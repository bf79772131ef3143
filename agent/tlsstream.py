"""TLS 1.3 over any trio stream, for this protocol's needs.

Unlike `trio.SSLStream` it sends the alert when it refuses a handshake, so that the peer can say why it
was refused, and it takes all records that have arrived in one go instead of one (of 16 KiB) at a time,
which costs bulk data far fewer turns of the event loop. It does less besides: there is no renegotiation
in TLS 1.3, and ends are not negotiated, because the frames inside say whether anything is missing.

While several connections send large pieces at once, these are encrypted in worker threads (`agent.spread`).
OpenSSL's object for a connection is not made for two threads, so that receiving waits meanwhile.
"""

import os
import socket
import ssl
from contextlib import suppress

import trio

from agent.spread import LARGE, SHARED, Spread

_RECEIVE = 1024 * 1024

_UNSENT = 1024 * 1024
"""Bytes that may wait in the kernel for the network before the next are encrypted."""

_ciphertext = memoryview(bytearray(_RECEIVE))
_plaintext = memoryview(bytearray(_RECEIVE))
"""What is read and decrypted passes through these, which all connections share: memory that stays in the
processor's cache, and is neither zeroed nor given back for each read. Nothing waits while they are in use."""


class TLSStream(trio.abc.Stream):
    """At most one task may receive and one may send at a time. `do_handshake` comes before both."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        spread: Spread = SHARED,
    ) -> None:
        self.transport = transport
        self._spread = spread
        self._apart: trio.Event | None = None
        """Set when a thread has encrypted for this connection; None while none does, or is waited for."""
        self._torn = False
        """Whether records were made and perhaps not all of them sent, so that no more can follow."""
        if isinstance(transport, trio.SocketStream):
            # trio lets 16 KiB wait in the kernel, which is a turn of the event loop for each.
            transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate (DER) whose key the peer proved to have; None if it showed none."""
        return self._ssl.getpeercert(True)

    async def do_handshake(self) -> None:
        """Raises BrokenResourceError, caused by the SSLError, if either side refuses."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                with suppress(trio.BrokenResourceError):
                    await self._flush()  # the alert
                raise trio.BrokenResourceError("the TLS handshake failed") from error
            else:
                await self._flush()
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that has arrived, up to `max_bytes`; empty at the end, whether it was announced or not."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._wait_for_thread()
        waited = False
        while True:
            # Only once there is something: thousands of connections that wait must cost no memory.
            while not (self._incoming.pending or self._incoming.eof or self._ssl.pending()):
                await self._fill()
                waited = True
            data = self._decrypt(max_bytes or _RECEIVE)
            if data is not None:
                break
            await self._fill()
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def _decrypt(self, most: int) -> bytes | None:
        """What has arrived; empty at the end, None if it is less than a record."""
        most = min(most, _RECEIVE)
        size = 0
        try:
            while size < most:
                got = self._ssl.read(most - size, _plaintext[size:])  # into the view, gives a count
                if not got:
                    break
                size += int(got)
        except ssl.SSLWantReadError:
            if not size:
                return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as error:
            if not size:
                raise trio.BrokenResourceError("the TLS connection broke") from error
        return bytes(_plaintext[:size])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts all of `data` before it sends the first byte of it; pass it in moderate pieces.

        Where it is cancelled on the way, nothing more can be sent: the peer would miss records.
        """
        if self._torn:
            raise trio.BrokenResourceError("an earlier message was sent in part only")
        if len(data) < LARGE:
            await self._send(self._encrypt(data))
            return
        with self._spread.sending():
            await self._send(await self._encrypt_apart(data) if self._spread.pays else self._encrypt(data))

    def _encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        self._torn = True
        try:
            view = memoryview(data)
            while view:
                view = view[self._ssl.write(view) :]
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("the TLS connection broke") from error
        return self._outgoing.read()

    async def _encrypt_apart(self, data: bytes | bytearray | memoryview) -> bytes:
        self._apart = trio.Event()
        try:
            return await self._spread.run(lambda: self._encrypt(data))
        finally:
            self._apart.set()
            self._apart = None

    async def _send(self, ciphertext: bytes) -> None:
        await self.transport.send_all(ciphertext)
        self._torn = False

    async def _wait_for_thread(self) -> None:
        """Before anything is done with the connection's own memory; at most as long as a piece of each
        connection takes."""
        while self._apart is not None:
            with trio.CancelScope(shield=True):  # bytes that were read must not be lost
                await self._apart.wait()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.transport.aclose()

    async def _fill(self) -> None:
        if isinstance(self.transport, trio.SocketStream):
            size = await _read_socket(self.transport.socket)
            data: bytes | bytearray | memoryview = _ciphertext[:size]
        else:
            data = await self.transport.receive_some(_RECEIVE)
        if self._apart is not None:
            data = bytes(data)  # others pass through the same memory
            await self._wait_for_thread()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        await self.transport.send_all(self._outgoing.read())


async def _read_socket(sock: trio.socket.SocketType) -> int:
    """Reads what has arrived into `_ciphertext`; 0 at the end. Nothing waits after the bytes are there,
    as trio's own `recv_into` would."""
    while True:
        fd = sock.fileno()
        if fd < 0:
            raise trio.ClosedResourceError("this connection was closed")
        try:
            return os.readv(fd, [_ciphertext])
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
        except OSError as error:
            raise trio.BrokenResourceError("the connection broke") from error


def tls_alert(error: BaseException | None) -> str | None:
    """The alert with which the peer ended a TLS connection, such as UNKNOWN_CA, if that was it."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and error.reason and "_ALERT_" in error.reason:
            return error.reason.partition("_ALERT_")[2]
        error = error.__cause__ or error.__context__
    return None


def tls_problem(error: BaseException | None) -> tuple[str, str]:
    """OpenSSL's word for why a connection broke, and what it says of the peer's certificate; as far as it has
    any."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error.reason or "", str(getattr(error, "verify_message", ""))
        error = error.__cause__
    return "", ""
