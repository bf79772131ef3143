"""What is remembered of a directory spares work alone: each look finds what a fresh one does."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent import libc
from agent.libc import Account
from agent.scan import found_from
from reconciler.sync.names import AT_ONCE, LocalNames
from reconciler.sync.remembered import Remembered, ScanMemory
from reconciler.sync.selection import Selection
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Growing
from tests.agent.syncing import write_tree

TREE = {"a/b/one": b"1", "a/two": b"22", "a/link": "two", "a/none": None, "three": b"333", "x.log": b"log"}
IGNORE = ("*.log",)


def ahead() -> int:
    """So far that no file counts as changed just now."""
    return time.time_ns() + 60 * 10**9


async def look(
    memory: ScanMemory, root: Path, include: Sequence[str] = (), *, owners: bool = False
) -> TreeSource:
    source = await TreeSource.build(root, ignore=IGNORE, include=include, owners=owners, remembered=memory)
    memory.keep(source)
    return source


async def afresh(root: Path, include: Sequence[str] = (), *, owners: bool = False) -> TreeSource:
    return await TreeSource.build(root, ignore=IGNORE, include=include, owners=owners)


@contextmanager
def no_scan() -> Iterator[None]:
    """Nothing but a glance and reading what changed."""

    def scan(*_given: object, **_rules: object) -> None:
        raise AssertionError("the whole directory was scanned")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reconciler.sync.serving.scan", scan)
        yield


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """All there are here: whoever runs this is `app`. To be altered."""
    named = {os.geteuid(): "app", 4321: "other"}
    real = libc.find_account

    def find(kind: Literal["user", "group"], key: str | int) -> Account | None:
        if kind == "group" or isinstance(key, str):
            return real(kind, key)
        return Account(named[key], key) if key in named else None

    monkeypatch.setattr(libc, "find_account", find)
    return named


def owner_of(source: TreeSource, path: str) -> str:
    return source.names()[path][0]


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
    "a name of trueup's own": lambda root: (root / "a/two.trueup-backup-1").touch(),
}


async def test_what_its_name_alone_keeps_from_being_sent_is_warned_of(
    tmp_path: Path, users: dict[int, str]
) -> None:
    root = write_tree(tmp_path / "tree", {**TREE, ".trueup-staging/x": b"", "x.trueup-backup-1.log": b""})
    directory, warned = (
        Remembered(ahead),
        ("'.trueup-staging' has a name that only trueup gives and is not sent",),
    )
    assert (await afresh(root)).warnings == warned
    assert (await look(directory.of(""), root, owners=True)).warnings == warned
    users[os.geteuid()] = "renamed"
    again = await look(directory.of(""), root, owners=True)
    assert (owner_of(again, "three"), again.warnings) == ("renamed", warned)
    growing = await Growing.begin(root, Selection(IGNORE))
    assert growing.source.warnings == warned
    assert (await afresh(root, ["a/*"])).warnings == ()


@pytest.mark.parametrize("owners", [True, False], ids=["owners", "no owners"])
@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_each_change_is_found(tmp_path: Path, change: str, owners: bool) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    first = await look(directory.of(""), root, owners=owners)
    CHANGES[change](root)
    again = await look(directory.of(""), root, owners=owners)
    assert again == await afresh(root, owners=owners)
    assert (again == first) is (change == "ignored")
    assert await look(directory.of(""), root, owners=owners) is again


@pytest.mark.parametrize("owners", [True, False], ids=["owners", "no owners"])
@pytest.mark.parametrize(
    "change", ["ignored", "longer", "mode", "mode of a directory", "replaced", "time", "two of them"]
)
async def test_what_keeps_its_names_and_kinds_needs_no_scan(
    tmp_path: Path, change: str, owners: bool
) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    await look(directory.of(""), root, owners=owners)
    CHANGES[change](root)
    with no_scan():
        again = await look(directory.of(""), root, owners=owners)
        assert await look(directory.of(""), root, owners=owners) is again
    assert again == await afresh(root, owners=owners)
    assert bool(again.owners) is owners


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_another_owner_needs_no_scan(tmp_path: Path, users: dict[int, str]) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    first = await look(directory.of(""), root, owners=True)
    os.chown(root / "a/two", 4321, -1)
    os.chown(root / "a/b", 4_000_000_000, -1)
    with no_scan():
        again = await look(directory.of(""), root, owners=True)
    assert (owner_of(first, "a/two"), owner_of(again, "a/two"), owner_of(again, "three")) == (
        *("app", "other"),
        "app",
    )
    assert (again.tree, again.owners != first.owners) == (first.tree, True)
    assert again.warnings == ("an owner or a group has no name here: of 1 entry",)
    assert again == await afresh(root, owners=True)
    os.chown(root / "a/b", 0, -1)
    with no_scan():
        assert (await look(directory.of(""), root, owners=True)).warnings == ()
    without = Remembered(ahead)
    first = await look(without.of(""), root)
    os.chown(root / "a/two", 0, -1)
    assert (await look(without.of(""), root)).entries == first.entries


async def test_a_user_with_another_name_is_a_change(tmp_path: Path, users: dict[int, str]) -> None:
    """A look that finds nothing else sees it, whether by a glance or by a scan."""
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    first = await look(directory.of(""), root, owners=True)
    users[os.geteuid()] = "renamed"
    with no_scan():
        renamed = await look(directory.of(""), root, owners=True)
        assert await look(directory.of(""), root, owners=True) is renamed
    assert owner_of(renamed, "three") == "renamed"
    assert renamed.entries == first.entries
    assert renamed.owners != first.owners
    os.mkfifo(root / "fifo")  # no glance any more
    with_fifo = await look(directory.of(""), root, owners=True)
    assert await look(directory.of(""), root, owners=True) is with_fifo
    users[os.geteuid()] = "once more"
    again = await look(directory.of(""), root, owners=True)
    assert owner_of(again, "three") == "once more"
    assert again.warnings == with_fifo.warnings != ()
    assert again == await afresh(root, owners=True)


async def test_a_name_that_is_not_found_is_none_that_is_gone(tmp_path: Path, users: dict[int, str]) -> None:
    """As where the service that knows the users is down: nothing changes, and it is said once."""
    root = write_tree(tmp_path / "tree", TREE)
    names = LocalNames()
    directory = Remembered(ahead, names)
    first = await look(directory.of(""), root, owners=True)
    del users[os.geteuid()]
    with capture_logs() as logged:
        for _ in range(3):
            assert await look(directory.of(""), root, owners=True) is first
        # Nor does another directory lose it, or whatever has to be scanned.
        (root / "new").write_bytes(b"")
        again = await look(directory.of(""), root, owners=True)
        other = await look(Remembered(ahead, names).of(""), root, owners=True)
    assert (owner_of(again, "new"), owner_of(other, "three")) == ("app", "app")
    assert again.warnings == other.warnings == ()
    assert [(line["log_level"], line["number"], line["name"]) for line in logged] == [
        ("warning", os.geteuid(), "app")
    ]
    users[os.geteuid()] = "app"
    assert await look(directory.of(""), root, owners=True) is again
    del users[os.geteuid()]
    with capture_logs() as logged:
        assert await look(directory.of(""), root, owners=True) is again
    assert len(logged) == 1  # of each time that it goes


async def test_a_name_that_nobody_could_say_is_asked_for_again(
    tmp_path: Path, users: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a start while the name service is down."""
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)

    def down(_kind: str, _key: str | int) -> Account | None:
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    with monkeypatch.context() as patch:
        patch.setattr(libc, "find_account", down)
        first = await look(directory.of(""), root, owners=True)
        assert await look(directory.of(""), root, owners=True) is first
    nameless, why = first.warnings
    assert nameless == "an owner or a group has no name here: of 7 entries"
    assert why.startswith("owners or groups may have names that cannot be looked up, which is tried again: ")
    assert why.endswith(f"does not say whether it has the user {os.geteuid()}: Connection refused")
    again = await look(directory.of(""), root, owners=True)
    assert (owner_of(again, "three"), again.warnings) == ("app", ())
    # One that turns out to have no name is warned of as such.
    users.clear()
    with monkeypatch.context() as patch:
        patch.setattr(libc, "find_account", down)
        other = Remembered(ahead)
        assert len((await look(other.of(""), root, owners=True)).warnings) == 2
    known = await look(other.of(""), root, owners=True)
    assert known.warnings == (nameless,)
    assert await look(other.of(""), root, owners=True) is known


async def test_a_name_that_comes_to_be_known_is_told(tmp_path: Path, users: dict[int, str]) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    users.clear()
    first = await look(directory.of(""), root, owners=True)
    assert first.warnings == ("an owner or a group has no name here: of 7 entries",)
    users[os.geteuid()] = "app"
    again = await look(directory.of(""), root, owners=True)
    assert (owner_of(again, "three"), again.warnings) == ("app", ())


def test_very_many_names_take_turns(tmp_path: Path, users: dict[int, str]) -> None:
    there = found_from(tmp_path.lstat())
    numbers = range(5000, 5000 + 2 * AT_ONCE + 1)
    users |= {number: f"user{number}" for number in numbers}
    names = LocalNames()
    names.of({str(number): msgspec.structs.replace(there, uid=number) for number in numbers})
    users |= {number: f"renamed{number}" for number in numbers}
    assert [names.look_again() for _ in range(4)] == [AT_ONCE, 2 * AT_ONCE, len(numbers), len(numbers)]


async def test_rules_of_earlier_looks_are_forgotten(tmp_path: Path) -> None:
    """Whoever edits ignore lines all day fills no memory, and what still counts is not read again."""
    root = write_tree(tmp_path / "tree", TREE)
    directory = Remembered(ahead)
    kept = await look(directory.of("kept"), root)
    for number in range(5):
        await look(directory.of(("ignore", number)), root)
        assert await look(directory.of("kept"), root) is kept
        directory.forget()
        assert directory._scans.keys() == {"kept", ("ignore", number)}
    await look(directory.of("narrow"), root, ["three"])
    directory.forget()
    assert directory._scans.keys() == {"narrow"}
    assert directory.files.keys() == {"three"}


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
