"""The fuzz target for the wire: a short run from a known seed, and all that ever failed."""

from pathlib import Path

from tests.fuzz.wire import CRASHES, Case, fuzz, play, seeds

RUNS = 6_000


def test_a_short_run_finds_nothing(tmp_path: Path, exhaustive: bool) -> None:
    done, new, failed = fuzz(1, runs=RUNS * 50 if exhaustive else RUNS, save=tmp_path / "crashes")
    assert failed == 0
    assert done >= RUNS
    assert new > 50  # it gets somewhere


def test_what_failed_once_does_no_more() -> None:
    for path in sorted(CRASHES.glob("*")):
        play(Case.from_bytes(path.read_bytes()))


def test_a_case_survives_its_file() -> None:
    for case in seeds():
        assert Case.from_bytes(case.to_bytes()) == case
