"""What a look foresees of another release: it is begun anew, beside one that stays as it is."""

import os
import shutil
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.agent.releasing import release
from tests.agent.syncing import Host, Tree, read_tree, synchronise, write_tree
from tests.agent.test_itemise import deeds, foreseen, itemise
from tests.agent.test_task import inodes, trees
from tests.mounting import small_file_system


def current(host: Host) -> Path:
    return (host.target / "current").resolve(strict=True)


async def test_only_what_was_placed_goes_along(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    tree: Tree = {"a": b"1", "b": b"2", "c": b"3", "folder/x": b"4", "gone/y": b"5"}
    source = write_tree(tmp_path / "a", tree)
    await release(source, host)
    # In what is current somebody changed a file, two in the way of what comes, and put others beside them.
    (current(host) / "a").write_bytes(b"edited")
    write_tree(current(host), {"folder/theirs": b"6", "gone/theirs": b"7", "theirs": b"8"})
    (source / "b").write_bytes(b"two")
    shutil.rmtree(source / "folder")
    (source / "folder").write_bytes(b"now a file")
    shutil.rmtree(source / "gone")

    for policy in ("overwrite", "backup"):
        before = inodes(host.base)
        _, itemising = await itemise(source, host, strategy="release", on_local_edit=policy)
        assert inodes(host.base) == before
        sums = itemising.sums
        assert sums is not None
        assert sums.guards == ()
        assert deeds(itemising) == {
            "a": "update",
            "b": "update",
            "folder": "replace",
            "folder/x": "delete",
            "gone": "delete",
            "gone/y": "delete",
        }
        assert not any(item.saved for item in itemising.items)
        assert (sums.foreign, sums.local_edits, sums.bytes_requested) == (0, 1, 1 + 3 + 10)
    old = current(host)
    outcome = await release(source, host, on_local_edit="backup")
    assert (outcome.state, outcome.report.bytes_received) == ("SUCCESS", 14)
    assert read_tree(current(host)) == read_tree(source)
    assert (old / "theirs").read_bytes() == b"8"


async def test_an_edit_that_is_kept_goes_along(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "a", {"a": b"1", "b": b"2"})
    await release(source, host)
    (current(host) / "a").write_bytes(b"edited")
    write_tree(source, {"a": b"another", "b": b"two"})
    options: dict[str, Any] = {"strategy": "release", "on_local_edit": "keep"}
    _, itemising = await itemise(source, host, **options)
    assert deeds(itemising) == {"a": "keep", "b": "update"}
    await synchronise(source, host, **options)
    assert read_tree(current(host)) == {"a": b"edited", "b": b"two"}


async def test_the_commands_follow_each_switch_and_what_is_due(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.allow(commands={"note": ["true"]})
    one, two = (write_tree(tmp_path / name, {"v": name.encode()}) for name in ("one", "two"))
    options: dict[str, Any] = {"strategy": "release", "after": ("note",)}
    assert (await foreseen(one, host, **options)).after == ("note",)
    await synchronise(one, host, **options)
    assert (await foreseen(one, host, **options)).after == ()
    await synchronise(two, host, **options)
    sums = await foreseen(one, host, **options)
    assert (sums.after, sums.bytes_requested) == (("note",), 0)
    # Even where somebody made the current tree what another release would be.
    shutil.copy2(one / "v", current(host) / "v")
    sums = await foreseen(one, host, **options)
    assert (sums.after, sums.counts) == (("note",), {"update": 1})
    await synchronise(one, host, **options)
    # A change of what is current is put right there; the commands follow that too.
    (current(host) / "v").write_bytes(b"!")
    sums = await foreseen(one, host, **options)
    assert (sums.after, sums.counts) == (("note",), {"update": 1})
    sums = await foreseen(one, host, strategy="release", after=("note", "other"))
    assert sums.after == ("note", "other")
    assert [guard.reason for guard in sums.guards] == ["CommandNotAllowed"]


async def test_the_copy_that_it_begins_with_takes_room(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "host/srv", "size=4m"):
        host = Host(tmp_path / "host")
        source = write_tree(tmp_path / "source", {"large": os.urandom(2_500_000), "v": b"1"})
        assert (await release(source, host)).state == "SUCCESS"
        (source / "v").write_bytes(b"2")
        before = inodes(host.base)
        guards = (await foreseen(source, host, strategy="release")).guards
        assert [guard.reason for guard in guards] == ["DiskFull"]
        assert inodes(host.base) == before
        assert (await release(source, host)).state == "FAILED DiskFull"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=trees(), found=trees(), after=trees())
async def test_any_forecast_of_a_release_comes_true(
    tmp_path: Path, before: Tree, found: Tree, after: Tree
) -> None:
    base = tmp_path / os.urandom(8).hex()
    host = Host(base / "host")
    options: dict[str, Any] = {"strategy": "release", "allow_empty": True}
    await synchronise(write_tree(base / "before", before), host, **options)
    ours = read_tree(current(host))
    for name, content in found.items():
        path = current(host) / name
        is_free = not (path.parent.is_symlink() or path.is_symlink() or path.exists())
        if content is not None and path.parent.is_dir() and is_free:
            write_tree(current(host), {name: content})
    source = write_tree(base / "after", after)
    state = inodes(host.base)
    _, itemising = await itemise(source, host, **options)
    assert inodes(host.base) == state
    sums = itemising.sums
    assert sums is not None
    same = read_tree(source) == ours
    foretold = deeds(itemising)
    outcome = await synchronise(source, host, **options)
    assert outcome.state == "SUCCESS"
    assert sums.guards == ()
    assert outcome.report.bytes_received == sums.bytes_requested
    if same:
        return
    assert sums.foreign == sums.local_edits == 0
    gone = {path for path, deed in foretold.items() if deed == "delete"}
    made = {path for path, deed in foretold.items() if deed == "create"}
    now = read_tree(current(host))
    assert now.keys() == (ours.keys() - gone) | made
    untouched = ours.keys() - foretold.keys()
    assert {path: now[path] for path in untouched} == {path: ours[path] for path in untouched}
