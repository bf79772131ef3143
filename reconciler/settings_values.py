"""How the values of settings are written: durations, addresses, yes and no. Pure.

Each function raises ValueError with what it accepts, for a message that begins with the setting's name.
"""

import re
import shlex
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from reconciler.spec.values import parse_duration as parse_any_duration

MAX_DURATION = 1e12
"""Seconds; beyond it clocks lose their milliseconds."""

Network = IPv4Network | IPv6Network

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^:\[\]\s/]*)):(?P<port>[0-9]{1,5})")

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]|[0-9a-f:]*:[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to dial. `host` None: all interfaces; `port` 0: one that is free."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """`127.0.0.1:9000`, `host:9000`, `[::1]:9000`, or `:9001` for all interfaces."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError("HOST:PORT, [IPV6]:PORT, or :PORT for all interfaces")
    return Address(found["v6"] or found["host"] or None, int(found["port"]))


def parse_duration(text: str) -> float:
    """A duration as a spec has it, such as `500ms`, `60s`, `1h30m`, as seconds; more than none."""
    try:
        seconds = parse_any_duration(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < MAX_DURATION:
        raise ValueError("a duration such as 60s, 5m or 24h")
    return seconds


def parse_minutes(text: str) -> float:
    """Whole minutes as seconds; 0 switches off."""
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("a whole number of minutes, 0 for never")
    return int(text) * 60.0


def parse_flag(text: str) -> bool:
    word = text.lower()
    if word not in _YES | _NO:
        raise ValueError("1, true, yes, on, or 0, false, no, off")
    return word in _YES


def parse_path(text: str) -> Path:
    """A path, made absolute; `~` is the home directory."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("a path; the home directory that it starts at is not known") from None


def parse_command(text: str) -> tuple[str, ...]:
    """A command as a shell would split it."""
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        words = ()
    if not words:
        raise ValueError("a command such as /opt/tools/bin/invoke, quoted as for a shell")
    return words


def parse_server(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        good = False
    if not good:
        raise ValueError("a URL such as https://trueup.example, without credentials")
    return text.rstrip("/")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, with commas between."""
    try:
        return tuple(ip_network(word.strip()) for word in text.split(","))
    except ValueError:
        raise ValueError("addresses or networks with commas between, such as 10.0.0.7,fd00::/64") from None


def parse_hosts(text: str) -> frozenset[str]:
    """Names of hosts, with commas between, without a port."""
    names = [word.strip().lower().removesuffix(".") for word in text.split(",")]
    if not all(_HOST.fullmatch(name) for name in names):
        raise ValueError("names of hosts with commas between, such as trueup.example, without a port")
    return frozenset(name.removeprefix("[").removesuffix("]") for name in names)


def parse_log_format(text: str) -> Literal["text", "json"]:
    if text == "json":
        return "json"
    if text == "text":
        return "text"
    raise ValueError("text or json")


def parse_line(text: str) -> str:
    """One line of printable text: a command."""
    if not text.isprintable():
        raise ValueError("one line of printable text")
    return text


def parse_name(text: str) -> str:
    """One word: a branch, a user, a repository."""
    if text.startswith("-") or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("one word that does not start with '-'")
    return text


def parse_on_disk(text: str) -> bool:
    """Where something is kept: in memory only, or on disk as well."""
    if text in ("memory", "disk"):
        return text == "disk"
    raise ValueError("memory or disk")
