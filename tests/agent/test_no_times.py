"""Trees whose times mean nothing, as those of checkouts: what is the same is left alone and costs nothing."""

import itertools
import os
from pathlib import Path
from typing import Any

import msgspec

from agent.changes import Seen
from agent.planning import dated
from agent.wire.bulk import PIECES
from agent.wire.messages import ITEMISE, NO_TIMES, RUNS, AnyMessage, IndexFile
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import (
    Host,
    Outcome,
    Tree,
    read_tree,
    synchronise,
    without_times,
    write_tree,
)
from tests.agent.test_itemise import itemise
from tests.agent.test_runs import file
from tests.channelpair import MemoryChannel

MANY = 600
TREE: Tree = {
    **{f"d{number % 20}/{number:05}": b"%d" % number for number in range(MANY)},
    "link": "d0/00000",
    "none": None,
}
NEW = {"d7/00007": b"another"}
FEATURES = (RUNS, PIECES, NO_TIMES)


_numbers = itertools.count()


def placed(base: Path, tree: Tree) -> Path:
    """The tree as one more checkout has it: each of them at another time."""
    number = next(_numbers)
    root = write_tree(base / f"tree-{number}", tree)
    at = 1_700_000_000_000_000_000 + number * 1_000_000_000
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(at, at), follow_symlinks=False)
    return root


async def checked_out(base: Path, tree: Tree) -> TreeSource:
    return without_times(await TreeSource.build(placed(base, tree)))


async def sync(source: TreeSource, host: Host, **changes: Any) -> tuple[Outcome, int]:
    """The outcome, and how many entries were sent."""
    sent = 0

    def prepare(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def count(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            nonlocal sent
            sent += len(message.entries) if isinstance(message, IndexFile) else 0
            return [(message, payload)]

        primary.alter = count

    changes.setdefault("features", FEATURES)
    outcome = await synchronise(source, host, prepare=prepare, **changes)
    assert outcome.state == "SUCCESS"
    return outcome, sent


def states(root: Path) -> dict[str, tuple[int, int, int]]:
    """Of all files and links: whoever touches one changes its state."""
    return {
        str(path.relative_to(root)): (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
        for status in [path.lstat()]
    }


async def test_of_another_commit_that_changes_one_file_that_one_is_sent_and_touched(
    tmp_path: Path, host: Host
) -> None:
    await sync(await checked_out(tmp_path, TREE), host)
    before = states(host.target)
    outcome, sent = await sync(await checked_out(tmp_path, TREE | NEW), host)
    after = states(host.target)
    assert {path for path in after if after[path] != before[path]} == set(NEW)
    assert read_tree(host.target) == read_tree(write_tree(tmp_path / "expected", TREE | NEW))
    assert (outcome.report.files_written, outcome.report.bytes_received) == (1, len(b"another"))
    assert sent < MANY // 10
    assert before["d7/00007"][1] < after["d7/00007"][1]


async def test_times_of_a_tree_that_has_some_are_placed(tmp_path: Path, host: Host) -> None:
    """And a host that was synced from one and then from the other is right about both."""
    live = await TreeSource.build(placed(tmp_path, TREE))
    await sync(live, host, features=(RUNS, PIECES))
    before = states(host.target)
    assert before["d0/00000"][1] == live.found["d0/00000"].mtime_ns

    _, sent = await sync(await checked_out(tmp_path, TREE | NEW), host)
    after = states(host.target)
    assert {path for path in after if after[path] != before[path]} == set(NEW)
    # Directories count as well: theirs went with the tree before, and say nothing in this one.
    assert sent < MANY // 10

    again = await TreeSource.build(placed(tmp_path, TREE | {"d7/00007": b"a third"}))
    await sync(again, host, features=(RUNS, PIECES))
    after = states(host.target)
    assert {after[path][1] for path in again.found} == {again.mtime_ns}


async def test_the_first_of_all_times_is_a_time(tmp_path: Path, host: Host) -> None:
    root = placed(tmp_path, TREE)
    for path in (root / "none", root):
        os.utime(path, ns=(0, 0))
    for _ in range(2):
        await sync(await TreeSource.build(root), host, features=(RUNS, PIECES))
        assert [path.stat().st_mtime_ns for path in (host.target, host.target / "none")] == [0, 0]
        (root / "d7/00007").write_bytes(b"another")
    at = host.target.stat().st_mtime_ns
    await sync(await checked_out(tmp_path, TREE | {"new": b"1"}), host)
    assert host.target.stat().st_mtime_ns > at


async def test_an_agent_that_knows_nothing_of_it_gets_the_time_of_the_checkout(
    tmp_path: Path, host: Host
) -> None:
    """Not 1970, and another one with each content: compilers and caches go by that."""
    seen = []
    for content in (b"one", b"two"):
        source = await checked_out(tmp_path, TREE | {"d7/00007": content})
        await sync(source, host, features=(RUNS, PIECES))
        seen.append(states(host.target)["d7/00007"][1])
        assert seen[-1] == source.mtime_ns
        assert host.target.stat().st_mtime_ns == source.mtime_ns
    assert seen[0] != seen[1]


async def test_agents_that_know_it_and_others_are_served_from_one_tree(tmp_path: Path) -> None:
    one, two = await checked_out(tmp_path, TREE), await checked_out(tmp_path, TREE | NEW)
    knowing, other = Host(tmp_path / "knowing"), Host(tmp_path / "other")
    for source in (one, two):
        for host, features in ((other, (RUNS, PIECES)), (knowing, FEATURES)):
            _, sent = await sync(source, host, features=features)
            assert source is one or (sent < MANY // 10) == (host is knowing)
            assert (states(host.target)["d3/00003"][1] == source.mtime_ns) == (host is other)
    assert read_tree(knowing.target) == read_tree(other.target)


async def test_a_release_has_the_times_of_the_one_before(tmp_path: Path, host: Host) -> None:
    await sync(await checked_out(tmp_path, TREE), host, strategy="release")
    before = states((host.target / "current").resolve())
    await sync(await checked_out(tmp_path, TREE | NEW), host, strategy="release")
    after = states((host.target / "current").resolve())
    assert {path for path in after if after[path][1] != before[path][1]} == set(NEW)


async def test_a_plan_of_files_foresees_no_change_of_times(tmp_path: Path, host: Host) -> None:
    await sync(await checked_out(tmp_path, TREE), host)
    source = await checked_out(tmp_path, TREE | NEW)
    _, itemising = await itemise(source, host, features=(ITEMISE, NO_TIMES))
    assert {item.path: item.deed for item in itemising.items} == {"d7/00007": "update"}


async def test_a_mode_alone_is_changed_without_the_time(tmp_path: Path, host: Host) -> None:
    await sync(await checked_out(tmp_path, TREE), host)
    before = states(host.target)
    root = placed(tmp_path, TREE)
    (root / "d5/00005").chmod(0o755)
    outcome, _ = await sync(without_times(await TreeSource.build(root)), host)
    after = states(host.target)
    assert {path for path in after if after[path] != before[path]} == {"d5/00005"}
    assert after["d5/00005"][1] == before["d5/00005"][1]
    assert outcome.report.bytes_received == 0


def test_what_is_written_is_of_now_and_what_is_the_same_keeps_its_time() -> None:
    index = [file("changed", b"2", 0), file("new", b"3", 0), file("same", b"1", 0)]
    seen = {
        entry.path: Seen(kind="file", mode=entry.mode, size=entry.size, mtime_ns=5, blocks=blocks, ours=True)
        for entry, blocks in ((index[0], b"1".ljust(32)), (index[2], index[2].blocks))
    }
    assert {entry.path: entry.mtime_ns for entry in dated(index, seen, 9)} == {
        "changed": 9,
        "new": 9,
        "same": 5,
    }
    assert [msgspec.structs.replace(entry, mtime_ns=0) for entry in dated(index, seen, 9)] == index
