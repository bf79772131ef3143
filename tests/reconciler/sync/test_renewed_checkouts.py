"""A tree of a directory that was hashed before is as if nothing had been known of it, and has of the earlier
one what did not change."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent.runs import SHORTEST, runs_of
from agent.scan import Found, hash_files
from agent.wire.messages import KnownRuns
from reconciler.sync.selection import Selection
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Growing, changed_places
from tests.agent.syncing import write_tree
from tests.agent.test_runs import file
from tests.reconciler.sync.test_remembered import CHANGES, TREE

ASKED = KnownRuns(length=SHORTEST, modes=True, digests=b"")


async def grown(
    root: Path, before: TreeSource | None = None, *, read: list[str] | None = None, modes: bool = True
) -> TreeSource:
    """`read` is told which files were read."""

    async def hash(root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        if read is not None:
            read.extend(path for path, _ in files)
        return await hash_files(root_fd, files)

    selection = Selection(("*.log",))
    growing = await Growing.begin(root, selection, ignore_permissions=not modes, hash=hash, before=before)
    await growing.run()
    return await growing.whole()


@pytest.mark.parametrize("modes", [True, False], ids=["modes", "no modes"])
@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_whatever_changed_the_tree_is_as_if_made_anew(tmp_path: Path, change: str, modes: bool) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    source = await grown(root, modes=modes)
    await source.runs.of(source.entries, ASKED, dated=False)
    for number in range(2):
        if number == 0:
            CHANGES[change](root)
        else:
            (root / "a/b").mkdir(exist_ok=True)
            (root / "a/b/one").write_bytes(b"the next commit")
        anew = await grown(root, modes=modes)
        source = await grown(root, source, modes=modes)
        assert source == anew
        assert await source.runs.of(source.entries, ASKED, dated=False) == runs_of(anew.entries, SHORTEST)


async def test_what_did_not_change_is_carried_over(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {f"d{n % 5}/{n:03}": f"{n}".encode() for n in range(400)})
    before = await grown(root)
    first = await before.runs.of(before.entries, ASKED, dated=False)
    (root / "d3/333").write_bytes(b"changed")
    read: list[str] = []
    now = await grown(root, before, read=read)
    assert read == ["d3/333"]
    places = changed_places(before.entries, now.entries)
    assert places is not None
    assert [now.entries[place].path for place in places] == ["d3/333"]
    again = await now.runs.of(now.entries, ASKED, dated=False)
    assert again.bounds is first.bounds
    others = [one is not other for one, other in zip(first.digests, again.digests, strict=True)]
    assert sum(others) == 1


async def test_entries_are_carried_over_where_paths_come_and_go(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"a/one": b"1", "a/two": b"2", "link": "a/one"})
    (root / "other").symlink_to("a/two")
    first = await grown(root)
    before = {entry.path: entry for entry in first.entries}
    (root / "a/two").rename(root / "a/three")
    read: list[str] = []
    now = {entry.path: entry for entry in (await grown(root, first, read=read)).entries}
    assert read == ["a/three"]
    assert {path for path, entry in now.items() if entry is not before.get(path)} == {"a/three"}


def test_places_are_told_only_of_the_same_paths() -> None:
    before = [file("a"), file("b"), file("c")]
    assert changed_places(before, list(before)) == []
    assert changed_places(before, [before[0], file("b"), before[2]]) == [1]
    assert changed_places(before, [before[0], file("bb"), before[2]]) is None
    assert changed_places(before, before[:2]) is None
