"""How many worker processes there are, as a table."""

import pytest

from reconciler.sync.worker_count import WorkerCount, how_many, parse_workers


@pytest.mark.parametrize(
    ("setting", "cores", "nodes", "workers"),
    [
        ("auto", 1, 1000, 0),
        ("auto", 2, 7, 0),
        ("auto", 2, 8, 1),
        ("auto", 3, 8, 2),
        ("auto", 5, 7, 0),
        ("auto", 5, 8, 4),
        ("auto", 64, 1000, 4),
        (0, 64, 1000, 0),
        (1, 1, 0, 1),
        (9, 2, 1, 9),
    ],
)
def test_workers(setting: WorkerCount, cores: int, nodes: int, workers: int) -> None:
    assert how_many(setting, cores, nodes) == workers


@pytest.mark.parametrize(("text", "count"), [("auto", "auto"), ("0", 0), ("3", 3), ("64", 64)])
def test_what_may_be_set(text: str, count: WorkerCount) -> None:
    assert parse_workers(text) == count


@pytest.mark.parametrize("text", ["", "-1", "65", "1000", "1.5", "many", "²", "Auto"])
def test_what_may_not_be_set(text: str) -> None:
    with pytest.raises(ValueError, match="auto, or a number from 0 to 64"):
        parse_workers(text)
