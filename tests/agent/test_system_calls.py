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

from reconciler.sync import streamed
from tests.agent.upheaval import FirstCopy, Upheaval

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

    def run(self, base: Path, source: Path, inject: str = "", *, streams: bool) -> dict[str, object]:
        self._say(json.dumps({"base": str(base), "source": str(source), "streams": streams}))
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

    def __init__(self, scene: Upheaval | FirstCopy, traced: Traced) -> None:
        self._scene = scene
        self._traced = traced
        self.attempt("")
        self.calls = traced.calls()

    def attempt(self, inject: str) -> dict[str, object]:
        """One task with an injected fault, what it left, and the retry."""
        host = trio.run(self._scene.host)
        answer = self._traced.run(host.base, self._scene.new, inject, streams=self._scene.streams)
        trio.run(self._scene.retry, host, inject)
        shutil.rmtree(host.base)
        return answer


@pytest.fixture
def attempts(tmp_path: Path, traced: Traced) -> Attempts:
    return Attempts(Upheaval(tmp_path), traced)


@pytest.fixture
def first_copies(tmp_path: Path, traced: Traced, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    return Attempts(FirstCopy(tmp_path), traced)


def some(calls: list[Call], most: int, *, exhaustive: bool) -> list[Call]:
    """All, or some of them, evenly spread over the task."""
    if exhaustive or len(calls) <= most:
        return calls
    return [calls[at * len(calls) // most] for at in range(most)]


def kinds(calls: list[Call], *, exhaustive: bool) -> list[Call]:
    """All, or the first and the last of each kind in each phase: a phase ends with the record of it."""
    if exhaustive:
        return calls
    phase = 0
    ends: dict[tuple[int, str], tuple[Call, Call]] = {}
    for call in calls:
        key = phase, call.name
        ends[key] = ends.get(key, (call, call))[0], call
        phase += call.name.startswith("rename") and ".manifest" in call.text
    return [call for pair in ends.values() for call in dict.fromkeys(pair)]


def kill_at(attempts: Attempts, calls: list[Call]) -> list[Call]:
    """Those at which nothing was killed."""
    return [
        call
        for call in calls
        if not attempts.attempt(f"?{call.name}:signal=KILL:when={call.number}")["killed"]
    ]


def fail_at(attempts: Attempts, calls: list[Call], error: str) -> int:
    """How many of these failed the task, or the primary's half of it."""
    failed = 0
    for call in calls:
        answer = attempts.attempt(f"?{call.name}:error={error}:when={call.number}")
        if answer["state"] == "FAILED":
            failed += 1
            assert answer["reason"] == REASONS[error], call
        failed += answer["state"] == "SOURCE"
    return failed


def without_sockets(calls: list[Call]) -> list[Call]:
    """An ioctl of the same number may be a socket's; what a refused clone leaves is in test_sharing."""
    return [call for call in calls if call.name != "ioctl"]


def test_killed_at_every_system_call_that_changes_a_file(attempts: Attempts, exhaustive: bool) -> None:
    assert len(attempts.calls) > 40
    assert kill_at(attempts, some(attempts.calls, KILLS, exhaustive=exhaustive)) == []


@pytest.mark.parametrize("error", REASONS)
def test_every_system_call_that_changes_a_file_fails(
    attempts: Attempts, error: str, exhaustive: bool
) -> None:
    calls = some(without_sockets(attempts.calls), FAILURES, exhaustive=exhaustive)
    assert fail_at(attempts, calls, error) >= FAILURES / 2


def test_a_first_copy_that_is_streamed_is_killed_at_each_kind_of_call(
    first_copies: Attempts, exhaustive: bool
) -> None:
    calls = kinds(first_copies.calls, exhaustive=exhaustive)
    missed = kill_at(first_copies, calls)
    # How often files are opened may differ a little, as the primary's half reads at the same time.
    assert [call for call in missed if call.name != "openat"] == []
    assert len(missed) < 3


@pytest.mark.parametrize("error", REASONS)
def test_each_kind_of_call_of_a_first_copy_that_is_streamed_fails(
    first_copies: Attempts, error: str, exhaustive: bool
) -> None:
    calls = kinds(without_sockets(first_copies.calls), exhaustive=exhaustive)
    if not exhaustive:  # each of them with one of the errors
        calls = calls[list(REASONS).index(error) :: len(REASONS)]
    assert fail_at(first_copies, calls, error) >= len(calls) / 2
