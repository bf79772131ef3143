"""What a primary and twenty agents hold after minutes or hours of work, against what they held at first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from tests.bench.flat import Course, Measure, course
from tests.bench.report import MIB
from tests.bench.soaking import Sample, Soak, soaking

AGENTS: Final = 20

MEMORY: Final = Measure("median", absolute=4 * MIB, share=0.05)
"""Free pieces of the heap that are not given back move by this much."""
FDS: Final = Measure("lowest")
THREADS: Final = Measure("median", absolute=4, share=0.5)
"""trio keeps idle ones for 10 s: how many there are says how much went on just now. The lowest would be that
of a moment in which the machine let nothing go on."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is watched."""

    name: str
    of: Callable[[Sample], float]
    measure: Measure
    unit: float = 1.0
    may_grow: bool = False
    """As what is kept on disk for some days."""


FIGURES: Final = (
    Figure("primary: memory, MiB", lambda one: one.primary.rss, MEMORY, MIB),
    Figure("primary: file descriptors", lambda one: one.primary.fds, FDS),
    Figure("primary: threads", lambda one: one.primary.threads, THREADS),
    Figure("agents: memory, MiB", lambda one: one.agents.rss, MEMORY, MIB),
    Figure("agents: file descriptors", lambda one: one.agents.fds, FDS),
    Figure("agents: threads", lambda one: one.agents.threads, THREADS),
    Figure("journal, MiB", lambda one: one.journal, MEMORY, MIB, may_grow=True),
)


def courses(samples: Sequence[Sample]) -> dict[str, Course]:
    """Of each figure by its name."""
    times = [one.seconds for one in samples]
    return {
        figure.name: course(times, [figure.of(one) for one in samples], figure.measure) for figure in FIGURES
    }


def grown(samples: Sequence[Sample]) -> dict[str, Course]:
    """Those that should have stayed the same and did not."""
    went = courses(samples)
    return {
        figure.name: went[figure.name]
        for figure in FIGURES
        if not figure.may_grow and not went[figure.name].flat
    }


def bench_soak(where: Path, *, minutes: float, agents: int = AGENTS) -> str:
    """Lets them work, and gives a table of how it went."""
    where.mkdir(mode=0o700)
    soak = trio.run(_soak, where, agents, minutes)
    return report(soak, agents)


async def _soak(where: Path, agents: int, minutes: float) -> Soak:
    async with soaking(where, agents=agents) as soak:
        told = 0.0

        def enough(_passes: int, seconds: float) -> bool:
            nonlocal told
            if soak.samples and seconds >= told:
                told += 60.0
                print(_line(soak.samples[-1], len(soak.samples)), file=sys.stderr, flush=True)
            return seconds >= minutes * 60

        await soak.keep_on(enough)
    return soak


def _line(sample: Sample, passes: int) -> str:
    shown = ", ".join(f"{figure.name} {figure.of(sample) / figure.unit:.1f}" for figure in FIGURES)
    return f"{sample.seconds / 60:.0f} min, {passes} passes: {shown}"


def report(soak: Soak, agents: int) -> str:
    minutes = soak.samples[-1].seconds / 60
    lines = [
        f"{agents} agents, {minutes:.0f} minutes, {len(soak.samples):,} passes, {soak.commits} commits "
        f"synced to each, load at the end {Path('/proc/loadavg').read_text().split()[0]}",
        "",
        "| what | after the warm-up | second quarter | last quarter | last tenth | an hour | flat |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure, went in zip(FIGURES, courses(soak.samples).values(), strict=True):
        cells = [f"{value / figure.unit:.1f}" for value in (went.start, went.early, went.late, went.end)]
        flat = "may grow" if figure.may_grow else "yes" if went.flat else "NO"
        lines.append(f"| {figure.name} | {' | '.join(cells)} | {went.slope / figure.unit:+.2f} | {flat} |")
    return "\n".join(lines)
