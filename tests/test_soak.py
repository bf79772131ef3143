"""What a primary and its agents hold does not grow with the passes they have made."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench.flat import Measure, course
from tests.bench.report import MIB
from tests.bench.soaking import Held, Sample, soaking
from tests.bench.soaks import AGENTS, courses, grown

PASSES = 30
"""A minute of them on a machine that is not busy."""


async def test_a_minute_of_passes_leaves_memory_descriptors_and_threads_as_they_were(tmp_path: Path) -> None:
    async with soaking(tmp_path, agents=AGENTS) as soak:  # at its end each host has the last commit
        await soak.keep_on(lambda passes, _seconds: passes >= PASSES)
        assert soak.commits == PASSES // 10
    assert len(soak.samples) == PASSES
    assert grown(soak.samples) == {}, courses(soak.samples)


def samples(count: int, *, rss: float = 0, fds: float = 0, threads: float = 0) -> list[Sample]:
    """Those of processes that gain so much with each pass, among what comes and goes."""
    noise = random.Random(1)
    made = []
    for number in range(count):
        held = Held(
            rss=round(100 * MIB + noise.randrange(MIB) + rss * number),
            fds=55 + noise.choice((0, 0, 3)) + int(fds * number),
            threads=noise.choice((2, 3, 5)) + int(threads * number),
        )
        made.append(Sample(2.0 * number, held, Held(900 * MIB, 220, 40), journal=4096 * number))
    return made


@pytest.mark.parametrize("count", [PASSES, 1_800])
def test_what_comes_and_goes_is_no_growth(count: int) -> None:
    assert grown(samples(count)) == {}


@pytest.mark.parametrize(
    ("leak", "name"),
    [
        ({"rss": 400 * 1024}, "primary: memory, MiB"),
        ({"fds": 1}, "primary: file descriptors"),
        ({"fds": 0.1}, "primary: file descriptors"),
        ({"threads": 1}, "primary: threads"),
    ],
    ids=["400-kib-a-pass", "a-descriptor-a-pass", "a-descriptor-a-commit", "a-thread-a-pass"],
)
def test_a_leak_is_seen_within_the_passes_of_the_test(leak: dict[str, float], name: str) -> None:
    assert list(grown(samples(PASSES, **leak))) == [name]


@pytest.mark.parametrize(
    ("leak", "name"),
    [
        ({"rss": 8 * 1024}, "primary: memory, MiB"),
        ({"fds": 0.002}, "primary: file descriptors"),
        ({"threads": 0.01}, "primary: threads"),
    ],
    ids=["8-kib-a-pass", "a-descriptor-in-500-passes", "a-thread-in-100-passes"],
)
def test_a_small_leak_is_seen_within_an_hour(leak: dict[str, float], name: str) -> None:
    assert list(grown(samples(1_800, **leak))) == [name]


def test_a_course_tells_what_an_hour_more_would_bring() -> None:
    times = [60.0 * minute for minute in range(60)]
    went = course(times, [100 + minute for minute in range(60)], Measure("median", absolute=10))
    assert went.slope == pytest.approx(60)
    assert (went.start, went.early, went.late, went.flat) == (115, 122, 152, False)


def test_growth_of_the_warm_up_does_not_count() -> None:
    times = [float(second) for second in range(100)]
    went = course(times, [min(second, 25) * 10.0 for second in range(100)], Measure("median"))
    assert (went.early, went.late, went.slope, went.flat) == (250, 250, 0, True)


def test_too_few_samples_are_no_course() -> None:
    with pytest.raises(ValueError, match="do not show a course"):
        course([1.0] * 7, [1.0] * 7, Measure("lowest"))
