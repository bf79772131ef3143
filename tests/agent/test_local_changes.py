"""A look soon after something happened in a target: what the kernel tells, and when it is heeded."""

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.drift import DriftWatch
from agent.hints import Hints
from agent.inotify import IGNORED, OVERFLOW, Notice, notices
from agent.local_changes import LocalChanges, concerned
from agent.manifest import manifest_path, state_of
from agent.versions import record_path
from agent.wire.messages import DriftReport
from tests.agent.syncing import Host, synchronise, write_tree
from tests.connected import make_node, running_hub

TREE = {"a": b"1", "b/c/d": b"2", "b/e": None, "link": "a"}
ONE, OTHER = Path("one"), Path("other")


async def placed(root: Path, strategy: str = "mirror") -> tuple[Host, Path]:
    host = Host(root / "host")
    outcome = await synchronise(write_tree(root / "source", TREE), host, strategy=strategy)
    assert outcome.state == "SUCCESS", outcome.report.message
    if strategy == "release":
        return host, record_path(host.state, str(host.target))
    return host, manifest_path(host.state, str(host.target))


def add(tree: Path) -> None:
    (tree / "b/c/new").write_bytes(b"")


def rewrite(tree: Path) -> None:
    (tree / "b/c/d").write_bytes(b"another")


def remove(tree: Path) -> None:
    (tree / "a").unlink()


def replace_link(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("b")


def change_mode(tree: Path) -> None:
    (tree / "b/e").chmod(0o700)


def move_away(tree: Path) -> None:
    tree.rename(tree.with_name("away"))


CHANGES = (add, rewrite, remove, replace_link, change_mode, move_away)


@pytest.mark.parametrize("strategy", ["mirror", "release"])
@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_happens_in_a_target_is_told(
    tmp_path: Path, change: Callable[[Path], None], strategy: str
) -> None:
    host, record = await placed(tmp_path, strategy)
    tree = host.target if strategy == "mirror" else (host.target / "current").resolve()
    changes = LocalChanges(host.rules, host.state)
    try:
        await changes.refresh([record])
        change(tree)
        with trio.fail_after(60):
            assert await changes.wait() == {record}
    finally:
        changes.close()


async def test_the_link_of_a_release_is_watched(tmp_path: Path) -> None:
    host, record = await placed(tmp_path, "release")
    changes = LocalChanges(host.rules, host.state)
    try:
        await changes.refresh([record])
        (host.target / "current").unlink()
        with trio.fail_after(60):
            assert await changes.wait() == {record}
    finally:
        changes.close()


async def test_what_a_task_placed_since_is_watched_as_well(tmp_path: Path) -> None:
    host, record = await placed(tmp_path)
    changes = LocalChanges(host.rules, host.state)

    async def told() -> None:
        with trio.fail_after(60):
            while await changes.wait() != {record}:
                pass

    try:
        # What is watched from now on may have changed before.
        assert await changes.refresh([record]) == {record}
        assert await changes.refresh([record]) == set()
        write_tree(tmp_path / "source", {"later/file": b"3"})
        assert (await synchronise(tmp_path / "source", host)).state == "SUCCESS"
        await told()  # by what the task did
        assert await changes.refresh([record]) == {record}
        (host.target / "later/file").write_bytes(b"another")
        await told()
        assert await changes.refresh([]) == set()
        assert await changes.refresh([record]) == {record}
    finally:
        changes.close()


async def test_a_record_that_is_saved_ends_the_wait(tmp_path: Path) -> None:
    host, record = await placed(tmp_path)
    changes = LocalChanges(host.rules, host.state)
    try:
        await changes.refresh([])
        record.with_name("other.manifest").write_bytes(b"")
        with trio.fail_after(60):
            assert await changes.wait() == set()
    finally:
        changes.close()


async def test_where_there_are_too_many_directories_none_is_watched(tmp_path: Path) -> None:
    host, record = await placed(tmp_path)
    changes = LocalChanges(host.rules, host.state, most=3)
    try:
        await changes.refresh([record])
        assert changes._count(but=Path()) == 0
        # Nor what this host does not allow any more.
        host.allow(roots=(str(tmp_path / "elsewhere"),))
        other = LocalChanges(host.rules, host.state)
        await other.refresh([record])
        assert other._count(but=Path()) == 0
        other.close()
    finally:
        changes.close()


@asynccontextmanager
async def reports_of(root: Path, watch: DriftWatch) -> AsyncIterator[trio.MemoryReceiveChannel[DriftReport]]:
    """What a real hub is told by a real agent."""
    node = make_node(root)
    sink, reports = trio.open_memory_channel[DriftReport](100)
    async with running_hub(root, [node.enrolment()]) as setup, trio.open_nursery() as agents:
        agents.start_soon(setup.agent(node, drift=watch).run)
        take = setup.hub._reception.on_drift

        def note(name: str, report: DriftReport) -> None:
            take(name, report)
            sink.send_nowait(report)

        setup.hub._reception.on_drift = note
        with trio.fail_after(60):
            assert await setup.hub.wait_connected([node.name], 60)
            yield reports
        agents.cancel_scope.cancel()


async def test_a_change_is_told_to_the_primary_long_before_the_interval(tmp_path: Path) -> None:
    host, _ = await placed(tmp_path)
    watch = DriftWatch(host.rules, host.state, interval=7200, draw=lambda: 1.0, quiet=0.0, pause=0.0)
    async with reports_of(tmp_path, watch) as reports:
        (host.target / "a").write_bytes(b"x")
        report = await reports.receive()
    assert (report.project, report.target_path, report.count) == ("web", str(host.target), 1)


async def test_what_tasks_write_puts_no_look_off(tmp_path: Path) -> None:
    host, record = await placed(tmp_path)
    sink, looks = trio.open_memory_channel[bytes](1000)

    async def looked(count: int) -> None:
        sink.send_nowait(state_of(record))

    watch = DriftWatch(
        host.rules, host.state, interval=7200, draw=lambda: 1.0, quiet=0.0, pause=7200, looked=looked
    )
    async with reports_of(tmp_path, watch) as reports:
        for content in (b"2", b"3", b"4"):
            (tmp_path / "source/a").write_bytes(content)
            assert (await synchronise(tmp_path / "source", host)).state == "SUCCESS"
            while await looks.receive() != state_of(record):
                pass
        (host.target / "a").write_bytes(b"x")
        assert (await reports.receive()).count == 1


def test_notices_as_the_kernel_writes_them() -> None:
    name = b"file".ljust(16, b"\0")
    one = struct.pack("=iIII", 1, 2, 0, len(name)) + name
    lost = struct.pack("=iIII", -1, OVERFLOW, 0, 0)
    assert notices(one + lost) == [Notice(1, 2), Notice(-1, OVERFLOW)]
    assert notices(b"") == []


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    assert len(notices(data)) <= len(data) // 16


def test_whom_notices_concern() -> None:
    watched = {ONE: frozenset({1, 2}), OTHER: frozenset({2, 3})}
    assert concerned([Notice(1, 2)], watched) == {ONE}
    assert concerned([Notice(2, 2), Notice(9, 2)], watched) == {ONE, OTHER}
    assert concerned([Notice(-1, OVERFLOW)], watched) == {ONE, OTHER}
    assert concerned([Notice(3, IGNORED)], watched) == set()


def test_looks_come_soon_and_are_put_off_where_they_are_in_vain() -> None:
    hints = Hints(quiet=2.0, pause=10.0, longest=35.0)
    assert hints.due_at == inf
    hints.add([ONE], 100.0)
    hints.add([ONE, OTHER], 101.0)  # a second hint puts nothing off
    assert (hints.due_at, hints.due(102.0), hints.due(103.0)) == (102.0, {ONE}, {ONE, OTHER})
    hints.looked({ONE, OTHER}, {OTHER}, 103.0)
    assert hints.due_at == inf
    seen = []
    now = 103.0
    for _ in range(4):
        hints.add([ONE], now)
        seen.append(hints.due_at - now)
        now = hints.due_at
        hints.looked({ONE}, (), now)
    assert seen == [10.0, 20.0, 35.0, 35.0]
    hints.add([ONE], now)
    hints.looked({ONE}, {ONE}, now)
    hints.add([ONE], now)
    assert hints.due_at == now + 10.0
    # A look that finds what a task has placed says nothing of what follows.
    hints.placed({ONE}, now)
    assert hints.due_at == now + 2.0
    hints.looked({ONE}, (), now + 2.0)
    hints.add([ONE], now + 3.0)
    assert hints.due_at == now + 5.0
    hints.looked({ONE}, (), now)
    hints.add([ONE], now)
    # Where nobody is there it is tried again, and after a long quiet it is as new.
    hints.put_off({ONE}, now)
    assert hints.due_at == now + 10.0
    hints.looked({ONE}, (), now)
    hints.looked((), (), now + 100.0)
    hints.add([ONE], now + 100.0)
    assert hints.due_at == now + 102.0


def test_of_a_target_that_left_nothing_is_kept() -> None:
    hints = Hints(quiet=2.0, pause=10.0, longest=35.0)
    hints.add([ONE, OTHER], 100.0)
    hints.looked({ONE, OTHER}, (), 102.0)
    hints.keep([OTHER])
    hints.add([ONE], 102.0)  # it came back
    hints.add([OTHER], 102.0)
    assert (hints.due(104.0), hints.due(112.0)) == ({ONE}, {ONE, OTHER})
    # Nobody looks at what is gone.
    hints.keep([])
    assert hints.due_at == inf
    # What a task placed there before it went does not speak for it later.
    hints.placed([ONE], 200.0)
    hints.keep([OTHER])
    hints.add([ONE], 200.0)
    hints.looked({ONE}, (), 202.0)
    hints.add([ONE], 202.0)
    assert hints.due_at == 212.0
