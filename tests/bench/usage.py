"""What work costs: processor and memory of processes and of all that they start, and bytes on the wire."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.05
_TICK = os.sysconf("SC_CLK_TCK")
_REAPED_DEADLINE = 5.0

Roots = Callable[[], Sequence[int]]
"""The processes that a peer runs at the moment; what these have started is found from there."""


@dataclass
class Usage:
    """Filled in when the work has ended."""

    cpu_seconds: float = 0.0
    peak_rss: int = 0
    """Bytes: the peaks of all processes that were seen, added up."""
    wire_bytes: int = 0
    """What the loopback interface carried, with all headers, in both directions."""
    peaks: dict[int, int] = field(default_factory=dict)


@contextmanager
def measured(roots: Roots) -> Iterator[Usage]:
    """Measure while the block runs. Whatever else uses loopback meanwhile is counted too."""
    usage = Usage()
    long_lived = tuple(roots())
    for pid in _family(long_lived):
        _write(Path("/proc", str(pid), "clear_refs"), "5")  # the peak starts over
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(roots, usage, stop))
    cpu, wire = _cpu(long_lived), _loopback()
    sampler.start()
    try:
        yield usage
    finally:
        stop.set()
        sampler.join()
        _note_peaks(roots, usage)
        usage.wire_bytes = _loopback() - wire
        usage.cpu_seconds = _cpu(long_lived) - cpu
        usage.peak_rss = sum(usage.peaks.values())


def wait_until_alone(pid: int) -> None:
    """Until a server has reaped what it had started, so that their processor time is counted as its own."""
    deadline = time.monotonic() + _REAPED_DEADLINE
    while _family([pid]) != [pid] and time.monotonic() < deadline:
        time.sleep(0.005)


def _sample(roots: Roots, usage: Usage, stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_SECONDS):
        _note_peaks(roots, usage)


def _note_peaks(roots: Roots, usage: Usage) -> None:
    for pid in _family(roots()):
        usage.peaks[pid] = max(usage.peaks.get(pid, 0), _peak(pid))


def _cpu(roots: Sequence[int]) -> float:
    """Seconds, of the families of `roots` and of whatever this process has waited for."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + sum(map(_cpu_of, _family(roots)))


def _cpu_of(pid: int) -> float:
    fields = _stat(pid)
    # user, system, and the same of children that it has waited for: proc_pid_stat(5), counted from the state
    return sum(int(ticks) for ticks in fields[11:15]) / _TICK if fields else 0.0


def _family(roots: Sequence[int]) -> list[int]:
    """`roots` and their descendants, as far as they are there."""
    parents = {int(path.name): int(fields[1]) for path in _processes() if (fields := _stat(int(path.name)))}
    found = [pid for pid in roots if pid in parents]
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def _stat(pid: int) -> list[str]:
    """The fields from the state on; nothing for one that has ended."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    return _memory(pid, "VmRSS:")


def _peak(pid: int) -> int:
    """The most resident memory it had, in bytes."""
    return _memory(pid, "VmHWM:")


def _memory(pid: int, field: str) -> int:
    try:
        lines = Path("/proc", str(pid), "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError:
        return  # it has ended, or is another user's


def _loopback() -> int:
    """Bytes that the loopback interface has received, which is what it has sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.partition(":")[2].split()[0]) for line in lines if line.strip().startswith("lo:"))
