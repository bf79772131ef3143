"""Whether what a process holds stays the same for as long as it runs. Pure: figures in, a judgement out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

FEWEST: Final = 8
"""Samples, so that each quarter has two."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How a quarter of the samples becomes one level, and how far the last may be above the second.

    The first quarter does not count: a process fills its caches and takes from the system what it then keeps.
    `lowest` suits what is counted: a sample may fall into the midst of some work, and what leaks is there in
    every sample.
    """

    level: Literal["median", "lowest"]
    absolute: float = 0.0
    share: float = 0.0

    def of(self, figures: Sequence[float]) -> float:
        return median(figures) if self.level == "median" else min(figures)

    def allows(self, early: float, late: float) -> bool:
        return late <= early + max(self.absolute, early * self.share)


@dataclass(frozen=True, slots=True)
class Course:
    """How one figure went: `early` is its second quarter, `late` its last."""

    start: float
    """The first one after the warm-up."""
    early: float
    late: float
    end: float
    """The median of the last tenth."""
    slope: float
    """How much more it was after another hour, by all samples after the warm-up."""
    flat: bool


def course(times: Sequence[float], figures: Sequence[float], measure: Measure) -> Course:
    """`times` in seconds, rising."""
    count = len(figures)
    if count < FEWEST or count != len(times):
        raise ValueError(f"{count} figures at {len(times)} times do not show a course")
    quarter = count // 4
    early, late = measure.of(figures[quarter : 2 * quarter]), measure.of(figures[-quarter:])
    return Course(
        start=figures[quarter],
        early=early,
        late=late,
        end=median(figures[-max(1, count // 10) :]),
        slope=slope(times[quarter:], figures[quarter:]) * 3600,
        flat=measure.allows(early, late),
    )


def slope(times: Sequence[float], figures: Sequence[float]) -> float:
    """The median of those between samples that are half the series apart: a few odd ones do not bend it."""
    apart = len(times) // 2
    return median(
        (figures[at + apart] - figures[at]) / (times[at + apart] - times[at])
        for at in range(len(times) - apart)
    )
