"""Where a running primary listens: a socket in its state directory for its owner, and a TCP address."""

import os
import socket
import stat
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import SettingsError
from reconciler.settings_values import Address

BACKLOG: Final = 512


def listen_locally(path: str) -> trio.SocketListener:
    """Listen on a Unix socket that only its owner may open, from the moment it is there.

    Call it only while no other primary can be running on the same state directory: a socket that is there
    was left by one that was killed, and is replaced. Raises SettingsError.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_socket(path)
        # bind(2) makes the file with the mode of the socket itself: at no time may others open it.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(path)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"{path}: cannot listen there: {error.strerror}", hint="give another --state-dir"
        ) from None
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def remove_socket(path: str) -> None:
    """Remove a socket that nothing listens on any more, if there is one. Raises SettingsError, OSError."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise SettingsError(f"{path}: is in the way and is no socket", hint="move it away")
    Path(path).unlink()


async def listen_on(address: Address) -> list[trio.SocketListener]:
    """Listen on every address of the machine where no host is given. Raises SettingsError."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"TRUEUP_HTTP_ADDR: cannot listen on {address}: {error.strerror or error}"
        ) from None


def address_of(listener: trio.SocketListener) -> Address:
    host, port, *_ = listener.socket.getsockname()
    return Address(host, port)
