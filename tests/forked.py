"""Commands of `trueup` as processes of their own that need not start Python and import everything first.

Each pytest process keeps one child that has imported the program and waits. For a command it forks: the new
process gets the command's arguments, environment, directory and pipes, runs `reconciler.__main__.main` and
ends as ever. Nothing is shared with the commands before it, and most of a command's time was the imports.

`trueup serve`, the agents, and whatever a test starts by itself are started in the ordinary way.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
_COMMANDS = ("cli", "cli_operations", "cli_releases", "cli_secrets", "cli_tokens", "cli_watching")
_USED = ("console", "console_progress", "primary", "reconcile", "serve")
"""Modules of the reconciler that bring nearly all others."""
_PIPES = 3
_GRACE = 30
"""Seconds that a command has to end in good order."""
_LENGTH = struct.Struct("!I")
_NUMBER = struct.Struct("!q")

_link: socket.socket | None = None


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a command may be forked: what decides how Python itself starts must be as it was."""
    return not any(name.startswith(("PYTHON", "LC_", "LANG")) for name in environment if name != "LC_ALL")


async def run_forked(
    arguments: Sequence[str], *, environment: Mapping[str, str], cwd: Path
) -> tuple[int, bytes, bytes]:
    """Run a `trueup` command to its end: exit code, standard output, standard error. Ended if cancelled."""
    request = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
    reading, writing = zip(*(os.pipe() for _ in range(_PIPES)), strict=True)
    try:
        _send(_server(), json.dumps(request).encode(), writing)
    finally:
        for descriptor in writing:
            os.close(descriptor)
    streams = [trio.lowlevel.FdStream(descriptor) for descriptor in reading]
    read = [bytearray() for _ in streams]

    async def drain(index: int) -> None:
        async for chunk in streams[index]:
            read[index] += chunk

    try:
        async with trio.open_nursery() as nursery:
            for index in range(_PIPES):
                nursery.start_soon(drain, index)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _end_command(streams[2], read[2])
        raise
    finally:
        with trio.CancelScope(shield=True):
            for stream in streams:
                await stream.aclose()
    assert len(read[2]) == 2 * _NUMBER.size, "the process that forks has gone"
    return _NUMBER.unpack_from(read[2], _NUMBER.size)[0], bytes(read[0]), bytes(read[1])


async def _end_command(told: trio.lowlevel.FdStream, read: bytearray) -> None:
    """As `trio.run_process` ends one that nobody waits for any more; returns when it has gone."""
    while len(read) < _NUMBER.size and (chunk := await told.receive_some()):
        read += chunk
    for number in (signal.SIGTERM, signal.SIGKILL):
        if len(read) == _NUMBER.size:  # it has begun, and it has not been told to have ended
            with suppress(ProcessLookupError):
                os.kill(_NUMBER.unpack(read)[0], number)
            with trio.move_on_after(_GRACE):
                async for more in told:
                    read += more


def _server() -> socket.socket:
    """The way to this process's child that forks."""
    global _link
    if _link is None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # no terminal, as the pipes that commands get
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR")} | {"LC_ALL": "C"},
                cwd=ROOT,
            )
        _link = ours
        atexit.register(_end, process)
    return _link


def _end(process: subprocess.Popen[bytes]) -> None:
    if _link is not None:
        _link.close()
    process.wait()


def _send(link: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    link.sendmsg([_LENGTH.pack(len(request))], [rights])
    link.sendall(request)


def _receive(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request with its three pipes; None at the end."""
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL
    head, descriptors, _, _ = socket.recv_fds(link, _LENGTH.size, _PIPES, flags)
    if len(head) < _LENGTH.size:
        return None
    size = _LENGTH.unpack(head)[0]
    return json.loads(link.recv(size, socket.MSG_WAITALL)), descriptors


class Server:
    """Forks, and tells each command's number when it has begun and its exit code when it has ended."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._running: dict[int, tuple[int, int]] = {}  # a process's descriptor: its number, where to tell
        self._selector = selectors.DefaultSelector()

    def serve(self) -> bool:
        """Until the other side has gone: False. In a new process: True, once all is as it asked for."""
        self._selector.register(self._link, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._link:
                    self._ended(key.fd)
                elif (received := _receive(self._link)) is None:
                    return False
                elif self._fork(*received):
                    return True

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> bool:
        pid = os.fork()
        if not pid:
            self._leave()
            _become(request, descriptors)
            return True
        output, errors, told = descriptors
        os.close(output)
        os.close(errors)
        os.write(told, _NUMBER.pack(pid))
        process = os.pidfd_open(pid)
        self._running[process] = pid, told
        self._selector.register(process, selectors.EVENT_READ)
        return False

    def _ended(self, process: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        pid, told = self._running.pop(process)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # whoever asked may have been cancelled
            os.write(told, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(told)

    def _leave(self) -> None:
        """What belongs to the process that forks is not the command's."""
        self._selector.close()
        self._link.close()
        for process, (_, told) in self._running.items():
            os.close(process)
            os.close(told)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    output, errors, told = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (output, errors, told):
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.modules["__main__"].__package__ = "reconciler"  # from which click takes the command's own name
    sys.argv = [str(ROOT / "reconciler/__main__.py"), *request["arguments"]]


def _main() -> None:
    for name in (*_COMMANDS, *_USED):
        importlib.import_module(f"reconciler.{name}")
    from reconciler.__main__ import main

    gc.collect()
    gc.freeze()  # a fork then shares these pages for good
    if Server(socket.socket(fileno=int(sys.argv[1]))).serve():
        main()


if __name__ == "__main__":
    _main()
