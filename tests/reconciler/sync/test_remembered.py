"""What is remembered of a directory spares work alone: each look finds what a fresh one does."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.sync.remembered import Remembered, ScanMemory
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import write_tree

TREE = {"a/b/one": b"1", "a/two": b"22", "a/link": "two", "a/none": None, "three": b"333", "x.log": b"log"}
IGNORE = ("*.log",)


def ahead() -> int:
    """So far that no file counts as changed just now."""
    return time.time_ns() + 60 * 10**9


async def look(memory: ScanMemory, root: Path, include: Sequence[str] = ()) -> TreeSource:
    source = await TreeSource.build(root, ignore=IGNORE, include=include, remembered=memory)
    memory.keep(source)
    return source


async def afresh(root: Path, include: Sequence[str] = ()) -> TreeSource:
    return await TreeSource.build(root, ignore=IGNORE, include=include)


def longer(path: Path) -> None:
    """Other content, and another size in case all happens within a tick of the clock."""
    path.write_bytes(path.read_bytes() + b"+")


def replaced(path: Path) -> None:
    path.with_name("fresh").write_bytes(path.read_bytes() + b"+")
    path.with_name("fresh").rename(path)


def relinked(path: Path) -> None:
    path.unlink()
    path.symlink_to("b/one")


def remade(path: Path) -> None:
    path.unlink()
    path.mkdir()


def each(change: Callable[[Path], None], *paths: Path) -> None:
    for path in paths:
        change(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda root: longer(root / "a/two"),
    "replaced": lambda root: replaced(root / "a/b/one"),
    "two of them": lambda root: each(longer, root / "three", root / "a/two"),
    "mode": lambda root: (root / "three").chmod(0o600),
    "time": lambda root: os.utime(root / "three", (1, 1)),
    "mode of a directory": lambda root: (root / "a/none").chmod(0o700),
    "new": lambda root: (root / "a/new").write_bytes(b"n"),
    "gone": lambda root: (root / "a/two").unlink(),
    "renamed": lambda root: (root / "a/two").rename(root / "a/three"),
    "a link": lambda root: relinked(root / "a/link"),
    "a directory for a file": lambda root: remade(root / "three"),
    "a directory gone": lambda root: shutil.rmtree(root / "a/b"),
    "ignored": lambda root: longer(root / "x.log"),
    "a FIFO": lambda root: os.mkfifo(root / "fifo"),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_each_change_is_found(tmp_path: Path, change: str) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    first = await look(directory.of(""), root)
    CHANGES[change](root)
    again = await look(directory.of(""), root)
    assert again == await afresh(root)
    assert (again == first) is (change == "ignored")
    assert await look(directory.of(""), root) is again


async def test_a_file_that_changed_is_served_from_what_it_is_now(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    first = await look(directory.of(""), root)
    longer(root / "three")
    again = await look(directory.of(""), root)
    assert again.found["three"].size == 4
    assert again.found["a/two"] == first.found["a/two"]
    assert again.runs is not first.runs
    assert again.frames is not first.frames


async def test_nothing_is_believed_that_could_have_changed_since(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    await look(directory.of(""), root)
    longer(root / "three")
    directory.now = lambda: 10**9
    changed = await look(directory.of(""), root)
    assert changed == await afresh(root)
    assert await look(directory.of(""), root) is not changed


STEPS = ["longer", "replaced", "mode", "gone", "new", "time"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.sampled_from(["a", "b", "c/d", "c/e", "c/f/g", "h/i", "x.log"]), min_size=1),
    include=st.sampled_from([(), ("c/",), ("a", "h/i")]),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 6)), max_size=6),
)
async def test_any_looks_one_after_the_other(
    tmp_path: Path, names: set[str], include: tuple[str, ...], steps: list[tuple[str, int]]
) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    write_tree(root, dict.fromkeys(sorted(names), b"x"))
    directory = Remembered(ahead)
    assert await look(directory.of(""), root, include) == await afresh(root, include)
    for step, number in steps:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        path = files[number % len(files)] if files else root
        if step == "new" or not files:
            (root / f"new-{number}").write_bytes(b"n" * (len(files) + 2))
        elif step == "gone":
            path.unlink()
        elif step == "mode":
            path.chmod(0o600 + number)
        elif step == "time":
            os.utime(path, (number, number))
        else:
            (longer if step == "longer" else replaced)(path)
        assert await look(directory.of(""), root, include) == await afresh(root, include)
        directory.forget()
