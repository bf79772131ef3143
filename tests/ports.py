"""Ports of loopback that nobody has at the moment, for programs that cannot be told to choose one."""

import socket


def free_ports(number: int) -> list[int]:
    """Different ones."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(each.getsockname()[1]) for each in taken]
    for each in taken:
        each.close()
    return ports


def free_port() -> int:
    [port] = free_ports(1)
    return port
