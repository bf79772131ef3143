"""An observer of the process list: what anyone on the host could read with `ps` while a test runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.canaries import redact, search_bytes

_PAUSE = 0.005  # seconds between two looks; only how much is seen depends on it, never a verdict


class ProcessList:
    """The command lines of this process' descendants, as a poll of /proc sees them.

    A process that lives shorter than the pause between two looks may be missed, so that this can prove a
    leak and never its absence alone.
    """

    def __init__(self) -> None:
        self.commands: set[tuple[str, ...]] = set()
        self._ours: set[tuple[int, str]] = set()
        self._stop = threading.Event()

    def look(self) -> None:
        """Look once."""
        parents: dict[int, tuple[int, str]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    line = Path("/proc", name, "stat").read_text(errors="replace")
                except OSError:
                    continue  # it has ended
                fields = line.rpartition(")")[2].split()
                parents[int(name)] = (int(fields[1]), fields[19])
        for pid, (_, started) in parents.items():
            # Once a descendant, always one: a daemon's parent is no longer ours.
            if (pid, started) in self._ours or _descends(pid, parents):
                self._ours.add((pid, started))
                try:
                    command = Path("/proc", str(pid), "cmdline").read_bytes()
                except OSError:
                    continue
                if command:
                    self.commands.add(tuple(command.decode(errors="replace").rstrip("\0").split("\0")))

    def watch(self) -> None:
        while not self._stop.wait(_PAUSE):
            self.look()

    def stop(self) -> None:
        self._stop.set()

    def leaks(self) -> list[str]:
        """Those command lines that show a canary, redacted."""
        shown = (" ".join(command) for command in sorted(self.commands))
        return [redact(command) for command in shown if search_bytes(command.encode(), "")]


def _descends(pid: int, parents: dict[int, tuple[int, str]]) -> bool:
    mine = os.getpid()
    while pid in parents:
        pid = parents[pid][0]
        if pid == mine:
            return True
    return False


@contextmanager
def watch_process_list() -> Iterator[ProcessList]:
    """Watch the process list from a thread; at the end no command line seen may hold a canary."""
    seen = ProcessList()
    thread = threading.Thread(target=seen.watch, name="process list", daemon=True)
    thread.start()
    try:
        yield seen
        seen.look()
    finally:
        seen.stop()
        thread.join()
    leaks = seen.leaks()
    assert not leaks, f"secret values in the process list: {leaks}"
