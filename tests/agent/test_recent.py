"""A look that was taken a moment ago stands for the one that a task would begin with, and for no other."""

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.glance import Glance
from agent.recall import LastLook, Recalled
from agent.recent import FRESH, RecentLooks
from agent.wire.messages import Command
from agent.work import run_work
from tests.agent.syncing import Host, Tree, observe, read_tree, synchronise, write_tree
from tests.channelpair import channel_pair

TREE: Tree = {"a/one": b"1", "a/two": b"2", "b/three": b"3"}
RECORD = Path("some.manifest")


def seen(**changes: object) -> Recalled:
    last = LastLook(2, b"", b"", (1, 2, 3), "web", b"tree", (), False, (), 0, 3, Glance((), (), b""))
    return Recalled(msgspec.structs.replace(last, **changes), {"": b"rows"})


async def test_a_look_counts_once_and_not_for_long(autojump_clock: MockClock) -> None:
    looks, look = RecentLooks(), seen()
    looks.keep(RECORD, look)
    assert looks.take(Path("another.manifest")) is None
    await trio.sleep(FRESH - 0.1)
    assert looks.take(RECORD) is look
    assert looks.take(RECORD) is None
    looks.keep(RECORD, look)
    await trio.sleep(FRESH)
    assert looks.take(RECORD) is None


async def test_a_look_that_nobody_asks_for_is_forgotten(autojump_clock: MockClock) -> None:
    looks = RecentLooks()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looks.expire)
        for number in range(3):
            looks.keep(Path(f"{number}.manifest"), seen())
            await trio.sleep(FRESH * 0.7)
        assert looks.held == 1
        await trio.sleep(2 * FRESH)
        assert looks.held == 0
        looks.keep(RECORD, seen())
        await trio.sleep(2 * FRESH)
        assert looks.held == 0
        nursery.cancel_scope.cancel()


async def test_a_look_that_kept_nothing_of_what_it_saw_is_not_kept() -> None:
    looks = RecentLooks()
    looks.keep(RECORD, Recalled(seen().last))
    assert looks.held == 0


async def test_looks_hold_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.recent.MOST_BYTES", 2 * len(b"rows"))
    looks = RecentLooks()
    for number in (1, 2, 2, 3):
        looks.keep(Path(f"{number}.manifest"), seen())
    assert looks.held == 2
    assert looks.take(Path("3.manifest")) is None
    assert looks.take(Path("1.manifest")) is not None
    looks.keep(Path("3.manifest"), seen())
    assert looks.take(Path("3.manifest")) is not None


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", TREE)
    await synchronise(source, host)
    (source / "a/one").write_bytes(b"another")
    return host


async def test_a_task_goes_by_the_look_before_it(host: Host, tmp_path: Path) -> None:
    """So what somebody changes elsewhere in between is the next look's."""
    source, looks = tmp_path / "source", RecentLooks()
    await observe(host, looks=looks)
    (host.target / "b/three").write_bytes(b"edited")
    outcome = await synchronise(source, host, looks=looks)
    assert (outcome.state, outcome.report.files_written) == ("SUCCESS", 1)
    assert read_tree(host.target) == {**read_tree(source), "b/three": b"edited"}
    assert (await observe(host, looks=looks)).local_edits == 1
    outcome = await synchronise(source, host, looks=looks)
    assert read_tree(host.target) == read_tree(source)


async def test_what_it_writes_to_is_looked_at_again(host: Host, tmp_path: Path) -> None:
    looks = RecentLooks()
    await observe(host, looks=looks)
    (host.target / "a/one").write_bytes(b"edited")
    outcome = await synchronise(tmp_path / "source", host, looks=looks, on_local_edit="backup")
    assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", 1)
    assert b"edited" in [path.read_bytes() for path in (host.target / "a").iterdir()]


async def test_a_look_that_is_too_old_counts_for_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.recent.FRESH", 0.0)
    looks = RecentLooks()
    await observe(host, looks=looks)
    (host.target / "b/three").write_bytes(b"edited")
    await synchronise(tmp_path / "source", host, looks=looks)
    assert read_tree(host.target) == read_tree(tmp_path / "source")


async def test_a_look_before_another_task_counts_for_nothing(host: Host, tmp_path: Path) -> None:
    looks = RecentLooks()
    await observe(host, looks=looks)
    await synchronise(tmp_path / "source", host)
    (host.target / "b/three").write_bytes(b"edited")
    (tmp_path / "source/a/two").write_bytes(b"another")
    await synchronise(tmp_path / "source", host, looks=looks)
    assert read_tree(host.target) == read_tree(tmp_path / "source")


async def test_a_look_for_another_task_counts_for_nothing(host: Host, tmp_path: Path) -> None:
    looks = RecentLooks()
    await observe(host, looks=looks)
    (host.target / "b/three").write_bytes(b"edited")
    await synchronise(tmp_path / "source", host, looks=looks, ignore=("*.log",))
    assert read_tree(host.target) == read_tree(tmp_path / "source")


async def test_where_nothing_is_to_be_brought_a_task_looks_for_itself(host: Host, tmp_path: Path) -> None:
    (tmp_path / "source/a/one").write_bytes(b"1")
    looks = RecentLooks()
    await observe(host, looks=looks)
    (host.target / "b/three").write_bytes(b"edited")
    await synchronise(tmp_path / "source", host, looks=looks)
    assert (host.target / "b/three").read_bytes() == b"3"


async def test_a_look_before_a_command_counts_for_nothing(host: Host, tmp_path: Path) -> None:
    host.allow(commands={"edit": ("/bin/sh", "-c", "echo edited > b/three")})
    looks = RecentLooks()
    await observe(host, looks=looks)
    _, agent = channel_pair()
    command = Command(id="c", project="web", target_path=str(host.target), command="edit")
    report = await run_work(command, agent, rules=host.rules, state_dir=host.state, looks=looks)
    assert report.state == "SUCCESS"
    assert (host.target / "b/three").read_bytes() == b"edited\n"
    await synchronise(tmp_path / "source", host, looks=looks)
    assert read_tree(host.target) == read_tree(tmp_path / "source")
