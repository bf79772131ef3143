"""Nothing that grows with a target is done in the event loop, which has others to answer meanwhile."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import agent
from agent.apply import BATCH
from tests.agent.syncing import Host, synchronise, write_tree

AGENT = str(Path(agent.__file__).parent)
FILES = 4 * BATCH
"""More than a step may go through, however often it does so."""


class Steps(trio.abc.Instrument):
    """Counts how often each line of the agent is run in one step of the loop; what runs in threads is not
    counted."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()
        self._before = sys.gettrace()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        sys.settrace(self._enter)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.end()

    def end(self) -> None:
        sys.settrace(self._before)
        self.most |= self._lines
        self._lines.clear()

    def _enter(self, frame: FrameType, _event: str, _given: object) -> Any:
        return self._run if frame.f_code.co_filename.startswith(AGENT) else None

    def _run(self, frame: FrameType, event: str, _given: object) -> Any:
        if event == "line":
            self._lines[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"] += 1
        return self._run


@contextmanager
def short_steps() -> Iterator[None]:
    """No step in here goes through all there is."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(steps)
        steps.end()
    assert steps.most
    assert {line: count for line, count in steps.most.items() if count >= FILES} == {}


def touch(target: Path, _source: Path) -> None:
    os.utime(target / "d1/f1")


def edit(target: Path, _source: Path) -> None:
    (target / "d1/f1").write_bytes(b"edit")


def add(_target: Path, source: Path) -> None:
    (source / "added").write_bytes(b"added")


def take_away(_target: Path, source: Path) -> None:
    (source / "d1/f1").unlink()


@pytest.mark.parametrize("how", [{}, {"delete_foreign": True, "on_local_edit": "keep", "owners": True}])
async def test_tasks_on_a_target_that_holds_much(in_memory: Path, how: dict[str, Any]) -> None:
    host = Host(in_memory / "host")
    source = write_tree(in_memory / "source", {f"d{n % 20}/f{n}": b"%d" % n for n in range(FILES)})
    changes: list[Callable[[Path, Path], None]] = [touch, edit, add, take_away]
    for change in [None, *changes]:
        if change is not None:
            change(host.target, source)
        with short_steps():
            outcome = await synchronise(source, host, **how)
        assert outcome.state == "SUCCESS", outcome.report.message
