"""TLS contexts, out of files that `agent.tls` writes; apart from it, because loading this takes little."""

import ssl
from pathlib import Path

from agent.errors import SettingsError


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def pairing_server_context(directory: Path) -> ssl.SSLContext:
    """For connections on which an agent pairs: asks for no client certificate."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_NONE
    context.num_tickets = 0
    _load_chain(context, directory, "server")
    return context


def session_server_context(directory: Path, anchors: list[bytes]) -> ssl.SSLContext:
    """For sessions: requires one of these certificates (DER). Build a new one when one is removed.

    Takes about 150 ms for 1,000 anchors.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    _load_chain(context, directory, "server")
    add_anchors(context, anchors)
    return context


def add_anchors(context: ssl.SSLContext, anchors: list[bytes]) -> None:
    """Let a live context accept further certificates (DER)."""
    if anchors:
        context.load_verify_locations(cadata=b"".join(anchors))


def client_context(directory: Path | None, name: str = "client") -> ssl.SSLContext:
    """The agent's: nothing is verified by name or authority, the caller compares the pin.

    With a directory it shows `<name>.crt` when asked; while pairing it shows none.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if directory is not None:
        _load_chain(context, directory, name)
    return context


def _load_chain(context: ssl.SSLContext, directory: Path, name: str) -> None:
    try:
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    except (OSError, ssl.SSLError):
        raise SettingsError(f"{directory}: {name}.crt and {name}.key cannot be used for TLS") from None
