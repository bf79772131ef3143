"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024

FEW = 15
"""Runs that are shown one by one."""


@dataclass
class Measurement:
    """One peer at one piece of work: its runs, in seconds, and the most memory each of its processes used."""

    work: str
    peer: str
    seconds: list[float] = field(default_factory=list)
    scan_seconds: list[float] = field(default_factory=list)
    """How much of each run was the look at the source, where the peer can say it."""
    bytes_moved: int | None = None
    """Of file contents, as far as the peer says it, in the last run."""
    wire_bytes: list[int] = field(default_factory=list)
    """What a run put on the wire, in both directions and with everything."""
    cpu_seconds: list[float] = field(default_factory=list)
    """Of all processes of the peer."""
    peak_rss: dict[str, int] = field(default_factory=dict)
    """Bytes, by process."""
    note: str = ""
    """What else was counted, and what the goal is."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def note_memory(self, peaks: Mapping[str, int]) -> None:
        for process, peak in peaks.items():
            self.peak_rss[process] = max(peak, self.peak_rss.get(process, 0))


def machine(where: Path) -> dict[str, str | int]:
    """The facts without which a figure means nothing."""
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    place = where.resolve()
    mount = next(str(parent) for parent in (place, *place.parents) if str(parent) in kinds)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_mib": memory // MIB,
        "load_before": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
        "file_system": kinds[mount],
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }


def print_table(measurements: Sequence[Measurement], *, against: str) -> None:
    """One line for each piece of work and peer; the ratio is to the peer `against` at the same work."""
    base = {measured.work: measured.median for measured in measurements if measured.peer == against}
    head = ("work", "peer", "median", "ratio", "runs", "look at the source", "moved", "wire", "cpu")
    rows = [(*head, "peak memory", "note")]
    for measured in measurements:
        ratio = base.get(measured.work, 0.0) / measured.median
        rows.append(
            (
                measured.work,
                measured.peer,
                seconds_text(measured.median),
                f"{ratio:.2f}x" if ratio and measured.peer != against else "",
                _runs(measured.seconds),
                seconds_text(statistics.median(measured.scan_seconds)) if measured.scan_seconds else "",
                "" if measured.bytes_moved is None else size_text(measured.bytes_moved),
                size_text(statistics.median(measured.wire_bytes)) if measured.wire_bytes else "",
                seconds_text(statistics.median(measured.cpu_seconds)) if measured.cpu_seconds else "",
                ", ".join(f"{name} {peak // MIB} MiB".strip() for name, peak in measured.peak_rss.items()),
                measured.note,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def write_json(path: Path, facts: Mapping[str, str | int], measurements: Sequence[Measurement]) -> None:
    rows = [
        {
            "work": measured.work,
            "peer": measured.peer,
            "median_seconds": measured.median,
            "seconds": measured.seconds,
            "scan_seconds": measured.scan_seconds,
            "bytes_moved": measured.bytes_moved,
            "wire_bytes": measured.wire_bytes,
            "cpu_seconds": measured.cpu_seconds,
            "peak_rss_bytes": measured.peak_rss,
            "note": measured.note,
        }
        for measured in measurements
    ]
    path.write_text(json.dumps({"machine": dict(facts), "measurements": rows}, indent=2) + "\n")


def size_text(count: float) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / 1024:.0f} KiB"


def _runs(seconds: Sequence[float]) -> str:
    """Each of a few; of many how they spread."""
    if len(seconds) <= FEW:
        return " ".join(seconds_text(one) for one in seconds)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    spread = ", ".join(f"p{share} {seconds_text(cuts[share - 1])}" for share in (50, 95, 99))
    return f"{len(seconds)}: {spread}, most {seconds_text(max(seconds))}"


def seconds_text(value: float) -> str:
    if value < 0.001:
        return f"{value * 1e6:.1f} µs"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
