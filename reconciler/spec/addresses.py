"""Addresses of the right form that lead nowhere, or would show secrets on the way. Pure."""

import ipaddress
from urllib.parse import urlsplit


def url_fault(url: str) -> str | None:
    """Why nothing can be asked at this `http://` or `https://` address; None where something can."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return "its host or port is not valid"
    if parts.scheme not in ("http", "https"):
        return "is no http:// or https:// address"
    if not name:
        return "names no host"
    return "port 0 is none" if port == 0 else None


def port_fault(address: str) -> str | None:
    """Why the port of `host:port` is none; None where it is one."""
    port = int(address.rpartition(":")[2])
    return None if 0 < port < 65536 else f"port {port} is none; a port is 1 to 65535"


def secret_host_fault(host: str) -> str | None:
    """Why no secret may be asked for at this address. Plain HTTP would show every one to the network."""
    if (fault := url_fault(host)) is not None:
        return fault
    parts = urlsplit(host)
    if parts.query or parts.fragment or parts.username is not None:
        return "must be an address alone, without user, query or fragment"
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        return "is plain http, which is only allowed to this machine itself"
    return None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
