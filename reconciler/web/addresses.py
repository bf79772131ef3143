"""Whose address a request comes from, and whether the name that it was sent to is one of ours. Pure."""

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from reconciler.settings_values import Network

LOOPBACK_NAMES: Final = frozenset({"localhost"})
MAX_HOPS: Final = 32


def client_of(peer: str, forwarded: Sequence[str], trusted: "Collection[Network]") -> str:
    """The address that counts: the peer's, or what the trusted proxies behind it say.

    `forwarded`: all headers X-Forwarded-For. They are read from their end, as each proxy adds to it whom
    it heard: the first address that is no trusted proxy's is the client's, whatever that claims itself.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    hops = [hop.strip() for line in forwarded for hop in line.split(",")][-MAX_HOPS:]
    while hops and any(address in network for network in trusted):
        found = _parsed(hops.pop())
        if found is None:
            break
        address = found
    return str(address)


def group_of(client: str) -> str:
    """Whom a limit counts as one: an address, or the network that one customer has of IPv6."""
    address = _parsed(client)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return client


def is_ours(host: str, configured: Collection[str], reached: str) -> bool:
    """Whether a request may name this host: one that was configured, this machine's loopback, or `reached`,
    the address that the connection came to.

    A page in a browser can have its own name lead here, and then reads what is answered; it cannot have its
    requests bear another name.
    """
    name = host_name(host)
    if name is None:
        return False
    address = _parsed(name)
    if address is not None and (address.is_loopback or address == _parsed(reached)):
        return True
    return name in LOOPBACK_NAMES or name in configured


def host_name(host: str) -> str | None:
    """The name in `name`, `name:port` or `[address]:port`, in lower case; None for what is no host."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in host:
        return None
    return parts.hostname.removesuffix(".")


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
