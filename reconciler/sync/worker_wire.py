"""What a primary and its worker processes say to each other, over sockets that keep packets apart.

Each packet begins with a byte that says what it is. On the control socket of a worker the primary gives TLS
contexts, connections and pings, in order. Each connection has two sockets of its own: `down` carries what the
agent is to be sent, and back what became of it; `up` carries, as plain bytes, what the agent sent.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

# --- on the control socket
ANCHORS: Final = b"K"
"""Comes with a file of certificates (DER), one after the other: those of agents that may connect from now on.
The server's own certificate and key are read again."""
CONNECTION: Final = b"C"
"""Comes with three sockets: the TCP connection, whose preface was read, `down` and `up`."""
PING: Final = b"P"
"""Sent back as it is."""
MISTAKE: Final = b"M"
"""From the worker: what went wrong there and should not have, as text."""

# --- down, from the primary
DATA: Final = b"D"
"""Bytes to send."""
DATA_TO_ACK: Final = b"d"
"""The same, to be acknowledged."""
SHARED: Final = b"S"
"""Comes with a file in memory; `RANGE` says which bytes of it to send. To be acknowledged."""
RANGE: Final = struct.Struct("=QI")

# --- down, from the worker
CERTIFICATE: Final = b"C"
"""The TLS handshake is done; what the agent showed follows, in DER."""
REFUSED: Final = b"F"
"""It failed: OpenSSL's word for why and what it says of the certificate, with a zero between."""
ACK: Final = b"A"
"""All bytes up to `COUNT` went to the kernel, which sends them as the network allows."""
COUNT: Final = struct.Struct("=Q")
END: Final = b"E"
"""The agent closed the connection; all that it sent is on `up`."""
BROKEN: Final = b"B"
"""The connection broke; OpenSSL's word for why follows, if it has one."""

PIECE: Final = 64 * 1024
"""Bytes of a packet with data at most."""
MOST_PACKET: Final = 160 * 1024
"""Bytes of any packet; a peer's certificate may have 100 KiB."""
UNACKNOWLEDGED: Final = 256 * 1024
"""Bytes in packets with data that may be under way to a worker."""

_Buffer = bytes | bytearray | memoryview


class Packet(NamedTuple):
    kind: bytes
    """Empty at the end."""
    content: bytes
    fds: list[int]
    """The receiver's to close."""


async def receive(sock: trio.socket.SocketType, most: int, fds: int) -> Packet:
    """The next packet, with at most so many descriptors. Raises OSError, also for one that is too large."""
    room = socket.CMSG_SPACE(fds * array.array("i").itemsize) if fds else 0
    data, ancillary, flags, _ = await sock.recvmsg(most, room, socket.MSG_CMSG_CLOEXEC)
    got = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            got.frombytes(content[: len(content) - len(content) % got.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in got:
            socket.close(fd)
        raise OSError("a packet was cut off")
    return Packet(data[:1], data[1:], list(got))


def with_descriptors(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """What `sendmsg` takes to pass these on."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def refusal(reason: str, detail: str) -> bytes:
    """The content of a REFUSED."""
    return b"\0".join((reason.encode(), detail.encode()))


def parse_refusal(content: bytes) -> tuple[str, str]:
    reason, _, detail = content.partition(b"\0")
    return reason.decode(errors="replace"), detail.decode(errors="replace")


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that keeps packets apart. Raises OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
