"""Ports of loopback that nobody has at the moment, for programs that cannot be told to choose one."""

import random
import socket
from pathlib import Path

LOWEST = 10_240

_draw = random.SystemRandom()  # tests of several processes at once must not draw the same


def free_ports(number: int) -> list[int]:
    """Different ones, below those that the system gives to outgoing connections, as one could be next."""
    ports: list[int] = []
    for port in _draw.sample(range(LOWEST, _first_of_the_system()), 1000):
        if len(ports) == number:
            break
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
    assert len(ports) == number, "no port is free"
    return ports


def free_port() -> int:
    [port] = free_ports(1)
    return port


def _first_of_the_system() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
