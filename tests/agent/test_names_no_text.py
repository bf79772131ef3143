"""Names on a host that are no UTF-8, which no message and no record can hold, in the way of whole tasks."""

import io
import logging
import os
import shutil
from copy import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from agent.compare import Difference, Remembered, compare
from agent.index import BACKUP_MARK
from agent.logs import setup_logs
from agent.manifest import load, manifest_path
from agent.release_drift import compare_any
from agent.status import Board, read_status
from agent.versions import record_path
from agent.wire.forecast import DELETE
from agent.wire.messages import AnyMessage, Removal, RenderedContent, Task, TaskReport
from agent.work import run_work
from tests.agent.killed_task import Helper
from tests.agent.releasing import ONE, TWO, current, names, release, trees
from tests.agent.syncing import Host, Tree, observe, read_tree, sync, synchronise, write_tree
from tests.agent.test_itemise import assert_came_true, foreseen, itemise
from tests.channelpair import MemoryChannel, channel_pair

ODD = os.fsdecode(b"again-\xff")
"""Of which `ESCAPED` is what people are told, and also a name that a file may have."""

ESCAPED = r"again-\xff"

FOREIGN: Tree = {
    ODD: b"theirs",
    os.fsdecode(b"folder-\xfe"): None,
    os.fsdecode(b"full-\xfe/in/n\xc3\xbc\xff"): b"deep",
    "fdir": None,
    os.fsdecode(b"fdir/nu\xff"): b"theirs too",
    os.fsdecode(b"link-\xfd"): "a",
    "fdir/link": os.fsdecode(b"to/\xfc"),
    "a link": os.fsdecode(b"\xfb"),
}
TREE: Tree = {"a": b"1", "b/c": b"2", "b/d": b"3", "link": "a"}
NEXT: Tree = {"a": b"one", "b/c": b"2", "new": b"4", "link": "new"}


async def placed(tmp_path: Path, host: Host, tree: Tree = TREE, **changes: Any) -> Path:
    """The source of what stands in the target, with what others put there besides."""
    source = write_tree(tmp_path / "source", tree)
    assert (await synchronise(source, host, **changes)).state == "SUCCESS"
    write_tree(host.target, FOREIGN)
    return source


def renewed(source: Path, tree: Tree) -> Path:
    shutil.rmtree(source)
    return write_tree(source, tree)


def everything(tree: Tree) -> Tree:
    """A tree with the directories that its paths name."""
    above = {str(folder): None for path in tree for folder in Path(path).parents if str(folder) != "."}
    return {**above, **tree}


async def drift(host: Host) -> Difference | None:
    record = manifest_path(host.state, str(host.target))
    return await compare(record, rules=host.rules, state_dir=host.state, memory=Remembered())


# --- foreign files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["overwrite", "keep", "backup"])
async def test_they_are_deleted_like_any_other(tmp_path: Path, host: Host, policy: str) -> None:
    changes: dict[str, Any] = {"delete_foreign": True, "on_local_edit": policy}
    source = await placed(tmp_path, host, **changes)
    seen = await observe(host, **changes)
    assert (seen.state, seen.foreign) == ("SUCCESS", len(everything(FOREIGN)))
    done = await synchronise(renewed(source, NEXT), host, **changes)
    assert (done.state, done.report.foreign, done.report.warnings) == ("SUCCESS", 0, ())
    assert done.report.files_deleted == len(everything(FOREIGN)) + 1  # `b/d`
    assert read_tree(host.target) == read_tree(source)
    found = await drift(host)
    assert found is not None
    assert not found.count


async def test_where_nothing_else_changed_they_are_deleted_as_well(tmp_path: Path, host: Host) -> None:
    source = await placed(tmp_path, host, delete_foreign=True)
    for _ in range(2):
        assert (await synchronise(source, host, delete_foreign=True)).state == "SUCCESS"
        assert read_tree(host.target) == read_tree(source)


@pytest.mark.parametrize("changes", [{}, {"strategy": "overlay", "delete_foreign": True}])
async def test_they_stay_where_nobody_asks(tmp_path: Path, host: Host, changes: dict[str, Any]) -> None:
    source = await placed(tmp_path, host, **changes)
    assert (await observe(host, **changes)).state == "SUCCESS"
    done = await synchronise(renewed(source, NEXT), host, **changes)
    assert done.state == "SUCCESS"
    left = everything({"b/d": TREE["b/d"]}) if changes else {}
    assert read_tree(host.target) == read_tree(source) | everything(FOREIGN) | left
    assert (await synchronise(source, host, **changes)).state == "SUCCESS"


async def test_those_that_are_ignored_stay(tmp_path: Path, host: Host) -> None:
    """However an ignore line that matches them is written: here for all that begins alike."""
    changes: dict[str, Any] = {"delete_foreign": True, "ignore": ("again-*", "fdir/")}
    source = await placed(tmp_path, host, **changes)
    for _ in range(2):
        assert (await synchronise(renewed(source, NEXT), host, **changes)).state == "SUCCESS"
        stay = {path: each for path, each in FOREIGN.items() if path.startswith(("again-", "fdir"))}
        assert read_tree(host.target) == read_tree(source) | stay


async def test_the_guard_of_deletions_counts_them(tmp_path: Path, host: Host) -> None:
    source = await placed(tmp_path, host, delete_foreign=True)
    before = read_tree(host.target)
    done = await synchronise(renewed(source, NEXT), host, delete_foreign=True, max_delete=0.1)
    assert done.state == "FAILED TooManyDeletions"
    there = len(everything(FOREIGN)) + len(everything(TREE))
    told = f"{len(everything(FOREIGN)) + 1} of {there} entries there would be deleted"
    assert done.report.message.startswith(told)
    assert read_tree(host.target) == before


# --- in the way ------------------------------------------------------------------------------------

IN_THE_WAY: Tree = {os.fsdecode(b"b/nu\xff"): b"theirs"}


async def test_one_in_the_way_is_named_as_it_is_on_the_disk(tmp_path: Path, host: Host) -> None:
    source = await placed(tmp_path, host)
    write_tree(host.target, IN_THE_WAY)
    done = await synchronise(renewed(source, {"a": b"1", "b": b"a file now"}), host)
    assert done.state == "FAILED ForeignFiles"
    assert r"holds 'b/nu\xff', which trueup did not place" in done.report.message
    done = await synchronise(source, host, ignore=("nu*",))
    assert done.state == "FAILED ForeignFiles"
    assert r"holds 'b/nu\xff', which is ignored" in done.report.message
    assert read_tree(host.target) == everything({**TREE, **FOREIGN, **IN_THE_WAY})
    assert (await synchronise(source, host, delete_foreign=True)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def test_a_forecast_tells_of_all_of_them(tmp_path: Path, host: Host) -> None:
    source = renewed(await placed(tmp_path, host), {"a": b"1", "b": b"a file now"})
    write_tree(host.target, {**IN_THE_WAY, ESCAPED: b"theirs"})  # two are told of by one name
    (guard,) = (await foreseen(source, host)).guards
    assert r"holds 'b/nu\xff', which trueup did not place" in guard.message
    _, itemising = await itemise(source, host, delete_foreign=True)
    going = [path for path in read_tree(host.target) if path not in ("a", "b")]
    told = sorted(os.fsencode(path).decode(errors="backslashreplace") for path in going)
    assert sorted(item.path for item in itemising.items if item.deed == DELETE) == told
    assert itemising.sums is not None
    assert_came_true(itemising.sums, await synchronise(source, host, delete_foreign=True))


@pytest.mark.parametrize("delete_foreign", [True, False])
async def test_where_edits_are_backed_up(tmp_path: Path, host: Host, delete_foreign: bool) -> None:
    """A directory that was placed goes with what was edited in it, as far as nothing else is there."""
    changes: dict[str, Any] = {"on_local_edit": "backup", "delete_foreign": delete_foreign}
    source = await placed(tmp_path, host, **changes)
    write_tree(host.target, {**IN_THE_WAY, "b/c": b"edited"})
    done = await synchronise(renewed(source, {"a": b"1"}), host, **changes)
    assert done.state == "SUCCESS"
    (saved,) = (path for path in read_tree(host.target) if path.startswith("b/c.trueup-backup-"))
    assert done.report.warnings == (f"a local edit was saved as {saved!r}",)
    stays: Tree = {} if delete_foreign else everything({**FOREIGN, **IN_THE_WAY})
    assert read_tree(host.target) == {"a": b"1", "b": None, saved: b"edited"} | stays


async def test_one_that_is_changed_while_the_task_runs_is_saved_under_its_own_name(
    tmp_path: Path, host: Host
) -> None:
    """As far as there is room for that beside what tells a backup."""
    changes: dict[str, Any] = {"on_local_edit": "backup", "delete_foreign": True}
    source = await placed(tmp_path, host, **changes)
    long = os.fsdecode(b"\xff" * 200 + "ü".encode() * 27)
    write_tree(host.target, {long: b"theirs"})

    def edit_when_blocks_come(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if payload is not None:
                write_tree(host.target, {ODD: b"changed", long: b"changed"})
            return [(message, payload)]

        primary.alter = alter

    done = await synchronise(renewed(source, NEXT), host, prepare=edit_when_blocks_come, **changes)
    assert done.state == "SUCCESS"
    saved = [path for path in host.target.iterdir() if BACKUP_MARK in path.name]
    assert [path.read_bytes() for path in saved] == [b"changed"] * 2
    starts = sorted(os.fsencode(path.name).partition(b".trueup-")[0] for path in saved)
    assert starts == [b"again-\xff", b"\xff" * 200 + "ü".encode() * 12]
    assert max(len(os.fsencode(path)) for path in read_tree(host.target)) <= 255
    assert sorted(each[:38] for each in done.report.warnings) == [
        r"a local edit was saved as '\xff\xff\xf",
        r"a local edit was saved as 'again-\xff.",
    ]


async def test_an_edited_link_leads_where_no_text_can_say(tmp_path: Path, host: Host) -> None:
    source = await placed(tmp_path, host)
    odd = os.fsdecode(b"else\xff")
    for policy in ("overwrite", "backup", "keep"):
        (host.target / "link").unlink()
        (host.target / "link").symlink_to(odd)
        found = await drift(host)
        assert found is not None
        assert found.count == 1
        assert (await observe(host, on_local_edit=policy)).state == "SUCCESS"
        assert (await synchronise(source, host, on_local_edit=policy)).state == "SUCCESS"
        assert str((host.target / "link").readlink()) == (odd if policy == "keep" else "a")
    assert [str(path.readlink()) for path in host.target.glob("link.trueup-backup-*")] == [odd]


async def test_a_rendered_file_beside_them(tmp_path: Path, host: Host) -> None:
    source = await placed(tmp_path, host, delete_foreign=True)
    write_tree(host.target, {os.fsdecode(b"etc/n\xff"): b"theirs"})
    files = (RenderedContent(path="etc/env", content=b"A=1\n"),)
    assert (await synchronise(source, host, rendered=files, delete_foreign=True)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source) | {"etc": None, "etc/env": b"A=1\n"}


# --- killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [{"delete_foreign": True}, {}], ids=["again", "kept-from-now-on"])
def test_killed_at_every_change(helper: Helper, tmp_path: Path, then: dict[str, Any]) -> None:
    """For each N, killed at the N-th change of the file system while they are deleted. The record says that a
    task was at work, and the next one concludes what it would have of any other name: a file of ours whose
    name is what they are told by is never taken for one."""
    common = {"a": b"1", ESCAPED: b"ours"}
    old = write_tree(tmp_path / "old", {**common, "becomes_file/x": b"2", "gone-\\xff": b"ours"})
    new = write_tree(tmp_path / "new", {**common, "becomes_file": b"3"})
    foreign: Tree = {ODD: b"theirs", os.fsdecode(b"gone-\xff"): b"1", os.fsdecode(b"becomes_file/\xff"): b"2"}
    in_the_middle = 0
    for number in range(1, 400):
        host = Host(tmp_path / f"host{number}")
        assert sync(old, host, delete_foreign=True) == "SUCCESS"
        write_tree(host.target, foreign)
        killed, _ = helper.run(host.base, new, number, delete_foreign=True)
        if not killed:
            break
        record = load(manifest_path(host.state, str(host.target)))
        assert record is not None
        left = {path: each for path, each in foreign.items() if path in read_tree(host.target)}
        if 0 < len(left) < len(foreign):
            assert len(record.deleting) > len(foreign), number
            assert trio.run(drift, host) is None, number
            in_the_middle += 1
        if then:
            assert sync(new, host, **then) == "SUCCESS"
            left = {}
        elif os.fsdecode(b"becomes_file/\xff") in left:
            assert sync(new, host) == "FAILED ForeignFiles"
            (host.target / os.fsdecode(b"becomes_file/\xff")).unlink()
            del left[os.fsdecode(b"becomes_file/\xff")]
        assert sync(new, host, **then) == "SUCCESS"
        assert read_tree(host.target) == read_tree(new) | left, number
        shutil.rmtree(host.base)
    assert in_the_middle > 5


def test_killed_where_nothing_else_goes(helper: Helper, tmp_path: Path) -> None:
    """A task is at work then as well, for whoever looks: one that was cut off is nobody's drift."""
    source = write_tree(tmp_path / "source", TREE)
    at_work = 0
    for number in range(1, 100):
        host = Host(tmp_path / f"host{number}")
        assert sync(source, host, delete_foreign=True) == "SUCCESS"
        write_tree(host.target, {ODD: b"theirs"})
        killed, _ = helper.run(host.base, source, number, delete_foreign=True)
        if not killed:
            break
        record = load(manifest_path(host.state, str(host.target)))
        assert record is not None
        if not record.tree:
            assert trio.run(drift, host) is None, number
            at_work += 1
    assert at_work > 3


# --- releases, removal and what is told ------------------------------------------------------------


@pytest.mark.parametrize("delete_foreign", [True, False])
async def test_releases(tmp_path: Path, host: Host, delete_foreign: bool) -> None:
    one, two = trees(tmp_path, ONE, TWO)
    changes: dict[str, Any] = {"delete_foreign": delete_foreign, "keep": 1}
    assert (await release(one, host, **changes)).state == "SUCCESS"
    version = host.target / "releases" / names(host)[0]
    write_tree(version, FOREIGN)
    write_tree(host.target, FOREIGN)
    write_tree(host.target / "releases", {os.fsdecode(b"1-\xff/a"): b"theirs"})
    again = await release(one, host, **changes)
    assert again.state == "SUCCESS"
    assert current(host) == read_tree(one) | ({} if delete_foreign else everything(FOREIGN))
    if delete_foreign:
        write_tree(version, FOREIGN)
    switched = await release(two, host, **changes)
    assert switched.state == "SUCCESS"
    assert current(host) == read_tree(two)
    assert version.exists() is not delete_foreign
    assert len(switched.report.warnings) == (0 if delete_foreign else 1)
    (host.target / "current").unlink()
    (host.target / "current").symlink_to(os.fsdecode(b"releases/1-\xff"))
    seen = await compare_any(
        record_path(host.state, str(host.target)),
        rules=host.rules,
        state_dir=host.state,
        memory=Remembered(),
    )
    assert seen is not None
    assert seen.count == 1
    assert (await observe(host, strategy="release", **changes)).state == "SUCCESS"
    assert (await release(two, host, **changes)).state == "SUCCESS"
    assert current(host) == read_tree(two)
    assert (await remove(host)).state == "SUCCESS"
    left = read_tree(host.target)
    assert {path: left[path] for path in everything(FOREIGN)} == everything(FOREIGN)
    assert os.fsdecode(b"releases/1-\xff/a") in left


async def remove(host: Host) -> TaskReport:
    removal = Removal(id="r1", project="web", target_path=str(host.target))
    _, agent = channel_pair()
    with trio.fail_after(60):
        report = await run_work(removal, agent, rules=host.rules, state_dir=host.state)
    msgspec.msgpack.encode(report)
    return report


async def test_a_removal_leaves_them(tmp_path: Path, host: Host) -> None:
    await placed(tmp_path, host, delete_foreign=True)
    write_tree(host.target, IN_THE_WAY)
    assert (await remove(host)).state == "SUCCESS"
    assert read_tree(host.target) == everything({**FOREIGN, **IN_THE_WAY})


async def test_drift_counts_them_and_is_another_with_each(tmp_path: Path, host: Host) -> None:
    await placed(tmp_path, host, delete_foreign=True)
    before = await drift(host)
    assert before is not None
    assert before.count == len(everything(FOREIGN))
    (host.target / ODD).rename(host.target / os.fsdecode(b"again-\xfe"))
    after = await drift(host)
    assert after is not None
    assert (after.count, after.digest != before.digest) == (before.count, True)


async def test_status_and_logs_hold_what_the_report_says(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("trueup")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, name, copy(getattr(logger, name)))
    source = await placed(tmp_path, host)
    write_tree(host.target, IN_THE_WAY)
    done = await synchronise(renewed(source, {"a": b"1", "b": b"a file now"}), host)
    task: Task = host.task(b"")
    for log_format in ("text", "json"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        setup_logs(log_format, stream)
        board = Board(host.base, node="n", version="1")
        await board.task_started(task)
        await board.task_ended(task, done.report)
        stream.flush()
        status = read_status(host.base)
        assert status is not None
        assert status.last_task is not None
        assert status.last_task.message == done.report.message
        assert isinstance(stream.buffer, io.BytesIO)
        assert rb"nu\\xff" in stream.buffer.getvalue()
