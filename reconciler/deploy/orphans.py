"""What a killed primary left running: found by the mark in its environment, ended, and its home removed.

A task's home has in its name who made it, process id and start time as in `/proc/<pid>/stat` (proc(5)),
and every process of the task has the home's name in its initial environment. A home whose maker is gone
belongs to an interrupted task; its step will be repeated, and must not meet its earlier self.

A successor does that when it starts. As it may be another one on another machine, a primary has a process
beside it that does it as soon as the primary is gone: see `Warden`.
"""

import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "TRUEUP_RUN"
"""The variable that holds the name of a task's home."""

_PREFIX = "home"
_GRACE = 5.0
_ROUNDS = 5
"""A process may start others while we look; each round finds those of the one before."""


def home_prefix() -> str:
    """How the name of a home made by this process begins."""
    return f"{_PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-"


def sweep(scratch: Path, *, grace: float = _GRACE) -> tuple[str, ...]:
    """End what interrupted tasks left running and remove their homes; the names of those homes.

    Blocks, for at most a few times `grace` seconds. Tasks of living primaries are left alone.
    """
    left = tuple(sorted(path.name for path in scratch.glob(f"{_PREFIX}-*") if not _is_alive(path.name)))
    if not left:
        return ()
    _end_marked(frozenset(left), grace)
    for name in left:
        shutil.rmtree(scratch / name, ignore_errors=True)
    return left


def _is_alive(home: str) -> bool:
    match home.split("-"):
        case [_, pid, start, _] if pid.isdecimal():
            return _start_time(int(pid)) == start
    return False


def _start_time(pid: int) -> str | None:
    """In clock ticks after boot; with the process id it names a process for good. None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] not in "ZX" else None


def _end_marked(homes: frozenset[str], grace: float) -> None:
    for round_number in range(_ROUNDS):
        held = list(_marked(homes))
        try:
            for pidfd in held:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM if round_number == 0 else signal.SIGKILL)
            _wait_ended(held, grace)
        finally:
            for pidfd in held:
                os.close(pidfd)
        if not held:
            return


def _marked(homes: frozenset[str]) -> Iterator[int]:
    """A pidfd of each running process that bears the mark."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        with suppress(OSError):  # ended meanwhile, or another user's, which is none of ours
            pidfd = os.pidfd_open(pid)
            try:
                # Read after the descriptor is held, so that it is this very process.
                bears = _mark_of(pid) in homes and _start_time(pid) is not None
            except OSError:
                bears = False
            if bears:
                yield pidfd
            else:
                os.close(pidfd)


def _mark_of(pid: int) -> str | None:
    start = f"{MARK}=".encode()
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(start):
            return os.fsdecode(entry.removeprefix(start))
    return None


def _wait_ended(pidfds: list[int], seconds: float) -> None:
    poll = select.poll()
    waiting = set(pidfds)
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while waiting and (remaining := deadline - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(None if remaining == float("inf") else remaining * 1000):
            poll.unregister(pidfd)
            waiting.discard(pidfd)


class Warden:
    """A process that outlives this one by a moment and ends what it left running below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._pid: int | None = None
        self._beginning = threading.Lock()

    def begin(self) -> None:
        """Have it run, from the first task on. Blocks for a moment; may be called from any thread."""
        with self._beginning:
            if self._runs():
                return
            # Its number is anybody's from now on, also where no other one can be had at the moment.
            self._pid = None
            # Of its own session, so that what ends our group does not end it first. `-I`, `-S`: it needs
            # nothing but Python.
            command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(self._scratch)]
            nothing = [(os.POSIX_SPAWN_OPEN, each, os.devnull, os.O_RDWR, 0) for each in range(3)]
            self._pid = os.posix_spawn(sys.executable, command, {}, file_actions=nothing, setsid=True)

    def end(self) -> None:
        """At a clean end, when nothing is left to see to."""
        with self._beginning:
            pid, self._pid = self._pid, None
            if pid is not None:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _runs(self) -> bool:
        with suppress(ChildProcessError):
            return self._pid is not None and os.waitpid(self._pid, os.WNOHANG) == (0, 0)
        return False


def _keep_watch(over: int, scratch: Path) -> None:
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(over)
        if os.getppid() == over:  # or it is gone, and another one has its number
            _wait_ended([watched], float("inf"))
    sweep(scratch)


if __name__ == "__main__":
    _keep_watch(int(sys.argv[1]), Path(sys.argv[2]))
