"""Puts what a run has measured into the page that shows it, between two marks."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.report import MIB, Measurement, seconds_text, size_text


def write_section(
    page: Path,
    facts: Mapping[str, str | int],
    measurements: Sequence[Measurement],
    *,
    runs: int,
    against: str,
    name: str = "copies",
) -> None:
    """`name` is in the marks. Raises ValueError where the page does not have the two marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end)
    when = datetime.datetime.now(tz=datetime.UTC).date()
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    lines = [f"Measured on {when}, medians of {runs} runs: {machine}.", ""]
    lines += table(measurements, against=against)
    page.write_text("\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"]))


def table(measurements: Sequence[Measurement], *, against: str) -> list[str]:
    """Markdown; the ratio says how many times as long the peer `against` takes."""
    base = {row.work: row.median for row in measurements if row.peer == against}
    head = ("work", "peer", "median", f"{against} takes", "look at the source", "on the wire")
    lines = [f"| {' | '.join((*head, 'processor', 'memory'))} |", f"|{'---|' * (len(head) + 2)}"]
    for row in measurements:
        ratio = base.get(row.work, 0.0) / row.median
        cells = (
            row.work,
            row.peer,
            seconds_text(row.median),
            f"{ratio:.2f}x" if ratio and row.peer != against else "",
            seconds_text(statistics.median(row.scan_seconds)) if row.scan_seconds else "",
            size_text(statistics.median(row.wire_bytes)),
            seconds_text(statistics.median(row.cpu_seconds)),
            f"{sum(row.peak_rss.values()) // MIB} MiB" if row.peak_rss else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines
