"""Each system call that changes a file, killed or failed by strace: old or new content, and a retry mends."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.agent.upheaval import Upheaval

CHANGING = (
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "copy_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown"),
    *("utimensat", "fsync", "fdatasync", "syncfs", "openat", "ioctl"),
)
ONLY_WITH = {"openat": "O_CREAT", "ioctl": "FICLONE"}
"""Calls that change a file only with this among their arguments."""

REASONS = {
    "ENOSPC": "DiskFull",
    "EIO": "InputOutputError",
    "EROFS": "ReadOnlyFileSystem",
    "EACCES": "PermissionDenied",
}
KILLS = 22
FAILURES = 10
"""How many calls an ordinary run tries, for each error."""

_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """A system call: the `number`-th of its name in its thread, counted from 1."""

    name: str
    number: int
    text: str = ""


class Traced:
    """Tasks in a process of their own, each under strace."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.traced_task"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, object]:
        assert self._process.stdout is not None
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer

    def run(self, base: Path, source: Path, inject: str = "") -> dict[str, object]:
        self._say(json.dumps({"base": str(base), "source": str(source)}))
        command = ["strace", "-f", "-o", str(self._log), "-e", f"trace={_names()}"]
        if inject:
            command += ["-e", f"inject={inject}"]
        with subprocess.Popen(
            [*command, "-p", str(self._hear()["pid"])], stderr=subprocess.PIPE, text=True
        ) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            self._say("go")
            answer = self._hear()
            tracer.communicate()
        if "attached" not in attached:
            pytest.skip(f"strace: {attached.strip()}")
        assert answer["state"] != "CRASHED", (inject, answer["reason"])
        return answer

    def calls(self) -> list[Call]:
        """What changes a file, as the last task had it."""
        counts: Counter[tuple[str, str]] = Counter()
        found: list[Call] = []
        for line in self._log.read_text(errors="replace").splitlines():
            if (match := _CALL.match(line)) is None:
                continue
            thread, name, rest = match.groups()
            counts[thread, name] += 1
            if (mark := ONLY_WITH.get(name)) is None or mark in rest:
                found.append(Call(name, counts[thread, name], rest))
        return list({(call.name, call.number): call for call in found}.values())

    def close(self) -> None:
        self._process.communicate()


def _names() -> str:
    return ",".join(f"?{name}" for name in CHANGING)  # not each machine has all


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    traced = Traced(tmp_path_factory.mktemp("strace") / "log")
    yield traced
    traced.close()


class Attempts:
    """Tasks from the same beginning, each with another fault."""

    def __init__(self, where: Path, traced: Traced) -> None:
        self._upheaval = Upheaval(where)
        self._traced = traced
        self.attempt("")
        self.calls = traced.calls()

    def attempt(self, inject: str) -> dict[str, object]:
        """One task with an injected fault, what it left, and the retry."""
        host = trio.run(self._upheaval.host)
        answer = self._traced.run(host.base, self._upheaval.new, inject)
        trio.run(self._upheaval.retry, host, inject)
        shutil.rmtree(host.base)
        return answer


@pytest.fixture
def attempts(tmp_path: Path, traced: Traced) -> Attempts:
    return Attempts(tmp_path, traced)


def some(calls: list[Call], most: int, *, exhaustive: bool) -> list[Call]:
    """All, or some of them, evenly spread over the task."""
    if exhaustive or len(calls) <= most:
        return calls
    return [calls[at * len(calls) // most] for at in range(most)]


def test_killed_at_every_system_call_that_changes_a_file(attempts: Attempts, exhaustive: bool) -> None:
    assert len(attempts.calls) > 40
    for call in some(attempts.calls, KILLS, exhaustive=exhaustive):
        answer = attempts.attempt(f"?{call.name}:signal=KILL:when={call.number}")
        assert answer["killed"], call


@pytest.mark.parametrize("error", REASONS)
def test_every_system_call_that_changes_a_file_fails(
    attempts: Attempts, error: str, exhaustive: bool
) -> None:
    failed = 0
    # An ioctl of the same number may be a socket's; what a refused clone leaves is in test_sharing.
    calls = [call for call in attempts.calls if call.name != "ioctl"]
    for call in some(calls, FAILURES, exhaustive=exhaustive):
        answer = attempts.attempt(f"?{call.name}:error={error}:when={call.number}")
        if answer["state"] == "FAILED":
            failed += 1
            assert answer["reason"] == REASONS[error], call
    assert failed >= FAILURES / 2
