"""Each system call that changes a file, killed or failed by strace: old or new content, and a retry mends."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest
import trio

from reconciler.sync import streamed
from tests.agent.upheaval import AtAGlance, FirstCopy, Upheaval

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
LANES = 4
"""Tasks at once: each waits for its tracer and for the clock most of the time."""

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
        threads: set[str] = set()
        for line in self._log.read_text(errors="replace").splitlines():
            if (match := _CALL.match(line)) is None:
                continue
            thread, name, rest = match.groups()
            counts[thread, name] += 1
            if (mark := ONLY_WITH.get(name)) is None or mark in rest:
                found.append(Call(name, counts[thread, name], rest))
                threads.add(thread)
        assert len(threads) == 1, "a call may hide another of the same number in another thread"
        return found

    def close(self) -> None:
        self._process.communicate()


def _names() -> str:
    return ",".join(f"?{name}" for name in CHANGING)  # not each machine has all


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Traced]]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    logs = tmp_path_factory.mktemp("strace")
    lanes = [Traced(logs / str(number)) for number in range(LANES)]
    yield lanes
    for lane in lanes:
        lane.close()


Answer = dict[str, object]


class Attempts:
    """Tasks from the same beginning, each with another fault; as many at once as there are lanes."""

    def __init__(self, scenes: Sequence[Upheaval | FirstCopy], traced: Sequence[Traced]) -> None:
        self._lanes = SimpleQueue[tuple[Upheaval | FirstCopy, Traced]]()
        for lane in zip(scenes, traced, strict=True):
            self._lanes.put(lane)
        _attempt(scenes[0], traced[0], "")
        self.calls = traced[0].calls()

    def attempt(self, injects: Sequence[str]) -> list[Answer]:
        """For each injected fault a task, what it left, and the retry."""
        with ThreadPoolExecutor(LANES) as threads:
            return list(threads.map(self._attempt, injects))

    def _attempt(self, inject: str) -> Answer:
        lane = self._lanes.get()
        try:
            return _attempt(*lane, inject)
        finally:
            self._lanes.put(lane)


def _attempt(scene: Upheaval | FirstCopy, traced: Traced, inject: str) -> Answer:
    host = trio.run(scene.host)
    answer = traced.run(host.base, scene.new, inject, streams=scene.streams)
    trio.run(scene.retry, host, inject)
    shutil.rmtree(host.base)
    return answer


@pytest.fixture
def attempts(in_memory: Path, traced: list[Traced]) -> Attempts:
    return Attempts([Upheaval(in_memory / str(number)) for number in range(LANES)], traced)


@pytest.fixture
def at_a_glance(in_memory: Path, traced: list[Traced]) -> Attempts:
    return Attempts([AtAGlance(in_memory / str(number)) for number in range(LANES)], traced)


@pytest.fixture
def first_copies(in_memory: Path, traced: list[Traced], monkeypatch: pytest.MonkeyPatch) -> Attempts:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    return Attempts([FirstCopy(in_memory / str(number)) for number in range(LANES)], traced)


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
    answers = attempts.attempt([f"?{call.name}:signal=KILL:when={call.number}" for call in calls])
    return [call for call, answer in zip(calls, answers, strict=True) if not answer["killed"]]


def fail_at(attempts: Attempts, calls: list[Call], error: str) -> int:
    """How many of these failed the task, or the primary's half of it."""
    failed = 0
    answers = attempts.attempt([f"?{call.name}:error={error}:when={call.number}" for call in calls])
    for call, answer in zip(calls, answers, strict=True):
        if answer["state"] == "FAILED":
            failed += 1
            assert answer["reason"] == REASONS[error], call
        failed += answer["state"] == "SOURCE"
    return failed


def without_sockets(calls: list[Call]) -> list[Call]:
    """An ioctl of the same number may be a socket's; what a refused clone leaves is in test_sharing."""
    return [call for call in calls if call.name != "ioctl"]


def test_killed_at_every_system_call_that_changes_a_file(attempts: Attempts) -> None:
    assert len(attempts.calls) > 40
    assert kill_at(attempts, attempts.calls) == []


@pytest.mark.parametrize("error", REASONS)
def test_every_system_call_that_changes_a_file_fails(attempts: Attempts, error: str) -> None:
    calls = without_sockets(attempts.calls)
    assert fail_at(attempts, calls, error) >= len(calls) / 2


def test_a_task_that_looks_at_what_it_changes_alone_is_killed_at_each_kind_of_call(
    at_a_glance: Attempts, exhaustive: bool
) -> None:
    assert kill_at(at_a_glance, kinds(at_a_glance.calls, exhaustive=exhaustive)) == []


def test_each_kind_of_call_of_a_task_that_looks_at_what_it_changes_alone_fails(
    at_a_glance: Attempts, exhaustive: bool
) -> None:
    calls = kinds(without_sockets(at_a_glance.calls), exhaustive=exhaustive)
    assert fail_at(at_a_glance, calls, "EIO") >= len(calls) / 2


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
