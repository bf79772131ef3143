"""In what is tried here, no step of the event loop goes through all of a target: it has others to answer."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
import trio

import agent
from agent.apply import BATCH
from agent.manifest import load, manifest_path, save
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


def touch(host: Host, _source: Path) -> None:
    os.utime(host.target / "d1/f1")


def edit(host: Host, _source: Path) -> None:
    (host.target / "d1/f1").write_bytes(b"edit")


def add(_host: Host, source: Path) -> None:
    (source / "added").write_bytes(b"added")


def take_away(_host: Host, source: Path) -> None:
    (source / "d1/f1").unlink()


def put_something_foreign(host: Host, _source: Path) -> None:
    (host.target / "foreign").write_bytes(b"foreign")


def take_a_folder_away(_host: Host, source: Path) -> None:
    shutil.rmtree(source / "d1")


def change_all_modes(_host: Host, source: Path) -> None:
    for file in source.rglob("f*"):
        file.chmod(0o640)


def kill_a_task(host: Host, _source: Path) -> None:
    """One that was about to place all there is."""
    path = manifest_path(host.state, str(host.target))
    manifest = load(path)
    assert manifest is not None
    pending = tuple(placed.entry for placed in manifest.placed)
    save(path, msgspec.structs.replace(manifest, pending=pending, tree=b""), durable=False)


def replace_the_root(host: Host, _source: Path) -> None:
    before = host.target.rename(host.base / "before")
    shutil.copytree(before, host.target)
    shutil.rmtree(before)


CHANGES: tuple[Callable[[Host, Path], None], ...] = (
    touch,
    edit,
    put_something_foreign,
    add,
    take_away,
    take_a_folder_away,
    change_all_modes,
    kill_a_task,
    replace_the_root,
)


@pytest.mark.parametrize("how", [{}, {"delete_foreign": True, "on_local_edit": "keep", "owners": True}])
async def test_tasks_on_a_target_that_holds_much(in_memory: Path, how: dict[str, Any]) -> None:
    host = Host(in_memory / "host")
    much = FILES + FILES // 16  # also once a directory has gone
    source = write_tree(in_memory / "source", {f"d{n % 20}/f{n}": b"%d" % n for n in range(much)})
    for change in [None, *CHANGES]:
        if change is not None:
            change(host, source)
        with short_steps():
            outcome = await synchronise(source, host, **how)
        assert outcome.state == "SUCCESS", (change, outcome.report.message)
