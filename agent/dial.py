"""Dialling a primary: TCP, the preface that says what for, TLS, and whether it is the right one."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from agent import contexts, tls
from agent.address import Address
from agent.errors import ConnectionRefused
from agent.link import LinkLost, lost_by
from agent.tlsstream import TLSStream

PREFACE_SIZE = 8
PAIR_PREFACE = b"TRUEUP\x01P"
SESSION_PREFACE = b"TRUEUP\x01S"

HANDSHAKE_DEADLINE = 10.0
"""Seconds for everything from the first byte to the answer to the hello, on both sides."""

_UNSENT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Dialled:
    """A TLS connection over which nothing was sent yet, and whom it leads to."""

    stream: TLSStream
    fingerprint: str
    """The primary's, SHA-256 of its public key: the pin, where there was one."""


class Dial(Protocol):
    async def __call__(
        self, address: Address, preface: bytes, *, identity: Path | None, pin: str | None, name: str = ...
    ) -> Dialled: ...


async def dial(
    address: Address, preface: bytes, *, identity: Path | None, pin: str | None, name: str = "client"
) -> Dialled:
    """Connect to a primary. `identity` is the directory with the agent's key, None while pairing;
    `name` is which of those there.

    Raises LinkLost if it cannot be reached and ConnectionRefused if it is not the one that `pin`
    names; in that case nothing was sent to it but the start of TLS.
    """
    with trio.move_on_after(HANDSHAKE_DEADLINE):
        try:
            transport = await trio.open_tcp_stream(address.host, address.port)
        except OSError as error:
            raise LinkLost(f"{address}: cannot be reached: {_plain(error)}") from None
        tune(transport)
        done = False
        try:
            # Only now: reading the key takes as long as TLS itself, and one that is away is asked often.
            stream = TLSStream(transport, contexts.client_context(identity, name), server_side=False)
            await transport.send_all(preface)
            await stream.do_handshake()
            certificate = stream.peer_certificate
            if certificate is None:
                raise ConnectionRefused(f"{address}: the primary showed no certificate")
            seen = tls.spki_fingerprint(tls.load_certificate(certificate))
            if pin is not None and seen != pin:
                raise ConnectionRefused(
                    f"{address}: this is not the primary that was pinned: its fingerprint is {seen}, expected"
                    f" was {pin}",
                    hint="if the primary has a new master key, join again with the new --pin; if not,"
                    " somebody stands in between",
                )
            done = True
            return Dialled(stream, seen)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLost(f"{address}: {lost_by(error)}") from None
        finally:
            if not done:
                await trio.aclose_forcefully(transport)
    raise LinkLost(f"{address}: no answer within {HANDSHAKE_DEADLINE:g} seconds")


def tune(transport: trio.SocketStream) -> None:
    """Prepare a socket for bulk data in both directions and for a peer that vanishes.

    trio lets the kernel hold only 16 KiB that was not yet sent, which starves bulk data. Buffer sizes
    are left alone: setting one ends the kernel's own tuning, which goes further than we may.
    """
    transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _plain(error: OSError) -> str:
    """The reason of a failed connect; trio gathers one error for each address it tried."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        elif isinstance(inner, socket.gaierror):
            return inner.strerror or "the name is not known"
        elif isinstance(inner, OSError) and inner.errno:
            return os.strerror(inner.errno)
        else:
            inner = inner.__cause__
    return str(error) or "unknown reason"
