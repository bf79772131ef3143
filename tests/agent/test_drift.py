"""What an agent notices by itself of a target that is no longer as it was left, and what it tells of that."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.cli import _describe
from agent.compare import Difference, Remembered, compare
from agent.drift import DriftWatch
from agent.manifest import manifest_path
from agent.status import Board, read_status
from agent.wire.messages import DriftReport, RenderedContent
from tests.agent.syncing import Host, Tree, read_tree, synchronise, write_tree
from tests.connected import connected, make_node, running_hub, until

TREE: Tree = {"a.txt": b"one", "b/c.txt": b"two", "b/empty": None, "link": "a.txt", "big": b"x" * 300_000}
RENDERED = RenderedContent(path="conf/.env", content=b"A=1\n")


async def look(host: Host, memory: Remembered) -> Difference | None:
    record = manifest_path(host.state, str(host.target))
    return await compare(record, rules=host.rules, state_dir=host.state, memory=memory)


async def placed(tmp_path: Path, **changes: Any) -> Host:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", TREE)
    done = await synchronise(source, host, rendered=[RENDERED], **changes)
    assert done.report.state == "SUCCESS"
    return host


def edit(target: Path) -> None:
    (target / "a.txt").write_bytes(b"ONE")


def edit_at_once(host: Host) -> None:
    """So that nobody who looks meanwhile finds the file empty."""
    newer = host.base / "newer"
    newer.write_bytes(b"ONE")
    newer.rename(host.target / "a.txt")


def edit_and_hide(target: Path) -> None:
    before = (target / "a.txt").stat()
    (target / "a.txt").write_bytes(b"ONE")
    os.utime(target / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def chmod(target: Path) -> None:
    (target / "b/c.txt").chmod(0o600)


def point_elsewhere(target: Path) -> None:
    (target / "link").unlink()
    (target / "link").symlink_to("/etc/passwd")


def put_a_directory_there(target: Path) -> None:
    (target / "a.txt").unlink()
    (target / "a.txt").mkdir()


CHANGES: list[tuple[Callable[[Path], object], int]] = [
    (edit, 1),
    (edit_and_hide, 1),
    (chmod, 1),
    (point_elsewhere, 1),
    (put_a_directory_there, 1),
    (lambda target: (target / "b/c.txt").unlink(), 1),
    (lambda target: shutil.rmtree(target / "b"), 3),
    (lambda target: (target / "conf/.env").write_bytes(b"A=2\n"), 1),
    (lambda target: (target / "conf/.env").unlink(), 1),
    (shutil.rmtree, 6),
]
NAMES = [
    *("edit", "edit-with-old-time", "mode", "link", "kind", "gone", "folder-gone"),
    *("rendered", "rendered-gone", "all-gone"),
]


@pytest.mark.parametrize(("change", "count"), CHANGES, ids=NAMES)
async def test_a_change_is_seen(tmp_path: Path, change: Callable[[Path], object], count: int) -> None:
    host, memory = await placed(tmp_path), Remembered()
    clean = await look(host, memory)
    assert clean == Difference("web", str(host.target))
    assert await look(host, memory) == clean
    change(host.target)
    found = await look(host, memory)
    assert found is not None
    assert (found.count, len(found.digest)) == (count, 32)
    # The same looks the same, also to a process that remembers nothing but the rendered files.
    assert await look(host, memory) == found


async def test_what_is_no_change(tmp_path: Path) -> None:
    host, memory = await placed(tmp_path), Remembered()
    clean = await look(host, memory)
    (host.target / "a.txt").touch()
    (host.target / "b/of-others.log").write_bytes(b"foreign")
    assert await look(host, memory) == clean
    assert await look(host, memory) == clean


async def test_what_does_not_belong_there_where_nothing_else_may_be(tmp_path: Path) -> None:
    host, memory = await placed(tmp_path, delete_foreign=True, ignore=["*.log"]), Remembered()
    clean = await look(host, memory)
    assert clean is not None and clean.count == 0
    (host.target / "b/own.log").write_bytes(b"ignored")
    (host.target / "conf/.trueup-backup-x").write_bytes(b"ours")
    assert await look(host, memory) == clean
    (host.target / "b/foreign").write_bytes(b"foreign")
    found = await look(host, memory)
    assert found is not None and found.count == 1


async def test_modes_do_not_count_where_they_are_ignored(tmp_path: Path) -> None:
    host, memory = await placed(tmp_path, ignore_permissions=True), Remembered()
    clean = await look(host, memory)
    chmod(host.target)
    assert await look(host, memory) == clean


async def test_a_local_edit_that_was_kept_is_none(tmp_path: Path) -> None:
    host = await placed(tmp_path)
    edit(host.target)
    write_tree(tmp_path / "source", {"a.txt": b"newer"})
    assert (await synchronise(tmp_path / "source", host, on_local_edit="keep")).report.state == "SUCCESS"
    found = await look(host, Remembered())
    assert found is not None and found.count == 0


EDITS: list[Callable[[Path], object]] = [
    edit,
    point_elsewhere,
    put_a_directory_there,
    lambda target: in_place_of_the_empty(target).write_bytes(b"file"),
    lambda target: in_place_of_the_empty(target).symlink_to("/nowhere"),
    lambda target: os.mkfifo(in_place_of_the_empty(target)),
]
KINDS = [
    "edit",
    "link",
    "directory for a file",
    *(f"{kind} for a directory" for kind in ("file", "link", "FIFO")),
]


def in_place_of_the_empty(target: Path) -> Path:
    (target / "b/empty").rmdir()
    return target / "b/empty"


@pytest.mark.parametrize("delete_foreign", [False, True], ids=["foreign stays", "foreign goes"])
@pytest.mark.parametrize("change", EDITS, ids=KINDS)
async def test_nor_is_one_that_is_all_there_is(
    tmp_path: Path, change: Callable[[Path], object], delete_foreign: bool
) -> None:
    host, source = Host(tmp_path / "host"), write_tree(tmp_path / "source", TREE)

    async def sync(policy: str) -> int:
        outcome = await synchronise(source, host, on_local_edit=policy, delete_foreign=delete_foreign)
        assert outcome.state == "SUCCESS", outcome.report.message
        return outcome.report.local_edits

    await sync("keep")
    change(host.target)
    before = sorted(each.lstat().st_ino for each in host.target.rglob("*"))
    record = manifest_path(host.state, str(host.target))
    notes = set()
    for _ in range(3):
        assert await sync("keep") == 1
        found = await look(host, Remembered())
        assert found is not None and found.count == 0
        notes.add(record.read_bytes())
    assert len(notes) == 1
    assert sorted(each.lstat().st_ino for each in host.target.rglob("*")) == before
    # It is still known for what it is, by whoever wants it gone.
    await sync("overwrite")
    assert read_tree(host.target) == read_tree(source)


async def test_an_edit_that_was_kept_and_undone_is_none_any_more(tmp_path: Path) -> None:
    host = await placed(tmp_path)
    point_elsewhere(host.target)
    assert (await synchronise(tmp_path / "source", host, on_local_edit="keep")).report.local_edits == 1
    (host.target / "link").unlink()
    (host.target / "link").symlink_to("a.txt")
    assert (await synchronise(tmp_path / "source", host, on_local_edit="keep")).report.local_edits == 0
    point_elsewhere(host.target)
    found = await look(host, Remembered())
    assert found is not None and found.count == 1


async def test_what_was_read_is_not_read_at_each_look(tmp_path: Path) -> None:
    host, memory = await placed(tmp_path), Remembered()
    (host.target / "big").touch()
    clean = Difference("web", str(host.target))
    with trio.fail_after(60):
        while not memory.seen:  # until its time is old enough to tell a later change by
            assert await look(host, memory) == clean
    seen = memory.seen
    assert await look(host, memory) == clean and memory.seen == seen
    (host.target / "big").write_bytes(b"y" * 300_000)
    found = await look(host, memory)
    assert found is not None and found.count == 1 and memory.seen != seen


async def test_nobody_can_say_while_a_task_is_at_work_or_the_root_is_away(tmp_path: Path) -> None:
    host = await placed(tmp_path)
    assert await look(Host(tmp_path / "other"), Remembered()) is None
    host.allow(roots=(str(tmp_path / "elsewhere"),))
    watch = DriftWatch(host.rules, host.state)
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment()]) as setup, connected(setup, node):
        # A target that may not be looked at is not one that is gone.
        await watch.look(setup.hub._session("web-1"))
        assert setup.hub.drifts.due_at() == float("inf")


async def test_the_status_says_how_much_differs(tmp_path: Path) -> None:
    """A real agent on a real hub; its drift is that of its newest look, told already or not."""
    host, node = await placed(tmp_path), make_node(tmp_path)
    board = Board(host.state, node="web-1", version="1.2.3")
    looks, counts = trio.open_memory_channel[int](0)

    async def looked(drifted: int) -> None:
        await board.looked(drifted)
        await looks.send(drifted)

    async def status_at(drifted: int) -> list[str]:
        with trio.fail_after(60):
            while await counts.receive() != drifted:
                pass
        found = read_status(host.state)
        assert found is not None
        assert (found.drifted, bool(found.drift_seen)) == (drifted, True)
        return _describe(found)

    watch = DriftWatch(host.rules, host.state, interval=0.02, looked=looked)
    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:
        nursery.start_soon(setup.agent(node, drift=watch).run)
        lines = await status_at(0)
        assert "version:    1.2.3" in lines
        assert lines[-1].startswith("drift:      none, looked at ")
        edit_at_once(host)
        assert (await status_at(1))[-1].startswith("drift:      1 entry, looked at ")
        (host.target / "b/c.txt").unlink()
        assert (await status_at(2))[-1].startswith("drift:      2 entries, looked at ")
        await status_at(2)
        assert (await synchronise(tmp_path / "source", host, rendered=[RENDERED])).report.state == "SUCCESS"
        await status_at(0)
        nursery.cancel_scope.cancel()


async def test_it_is_told_once_and_again_when_it_is_another_one(tmp_path: Path) -> None:
    """A real agent on a real hub."""
    host, node = await placed(tmp_path), make_node(tmp_path)
    watch = DriftWatch(host.rules, host.state, interval=0.02)
    told: list[DriftReport] = []
    sink, reports = trio.open_memory_channel[DriftReport](100)
    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:
        take = setup.hub._reception.on_drift

        def note(name: str, report: DriftReport) -> None:
            assert name == "web-1"
            told.append(report)
            take(name, report)
            sink.send_nowait(report)

        async def next_report() -> DriftReport:
            with trio.fail_after(60):
                return await reports.receive()

        setup.hub._reception.on_drift = note
        nursery.start_soon(setup.agent(node, drift=watch).run)
        await until(setup, lambda: bool(setup.hub.connected()))
        edit_at_once(host)
        first = await next_report()
        assert (first.project, first.target_path, first.count) == ("web", str(host.target), 1)
        (host.target / "b/c.txt").unlink()
        second = await next_report()
        assert second.count == 2
        assert (await synchronise(tmp_path / "source", host, rendered=[RENDERED])).report.state == "SUCCESS"
        healed = await next_report()
        assert (healed.count, healed.digest) == (0, b"")
        # The very same as the first time, and after another task: it is told again.
        edit_at_once(host)
        again = await next_report()
        assert again.count == 1 and again.digest != first.digest
        # Whoever comes next is told as well, though nothing changed since.
        setup.hub._session("web-1").end()
        assert await next_report() == again
        assert len(told) == 5
        nursery.cancel_scope.cancel()
