"""What a task asks for, what it has open, and how long it waits, while no answer comes."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.blocks import MIN_BLOCK, WINDOW, block_count, block_length
from agent.errors import TransferFailed
from agent.index import STAGING, file_entry, tree_digest
from agent.transfer import MAX_PARTIAL
from agent.wire.bulk import BlockRequest
from agent.wire.channel import Channel
from agent.wire.messages import Cancel, Entry, IndexBegin, IndexEnd, IndexFile
from reconciler.sync import streamed
from tests.agent.inthread import without_threads
from tests.agent.streams import begin, first_copy
from tests.agent.syncing import Host, read_tree, run_against, write_tree
from tests.agent.upheaval import FIRST


def files(count: int, size: int) -> list[Entry]:
    return [
        file_entry(
            f"f{number:04}", mode=0o644, size=size, mtime_ns=1, blocks=os.urandom(32 * block_count(size))
        )
        for number in range(count)
    ]


async def asked_without_an_answer(host: Host, entries: list[Entry]) -> tuple[int, int]:
    """Bytes that are asked for, and files under way, where the primary sends an index and no more."""
    tree = tree_digest(entries, ignore_permissions=False)
    found: list[tuple[int, int]] = []
    asked: list[int] = []

    async def listen(channel: Channel) -> None:
        while True:
            message, _ = await channel.receive()
            assert isinstance(message, BlockRequest)
            asked.extend(block_length(entries[ordinal].size, number) for ordinal, number in message.blocks)

    async def primary(channel: Channel) -> None:
        await channel.receive()
        total = sum(entry.size for entry in entries)
        await channel.send(IndexBegin(task="t1", entries=len(entries), bytes=total))
        await channel.send(IndexFile(task="t1", entries=tuple(entries)))
        await channel.send(IndexEnd(task="t1", tree=tree))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, channel)
            await wait_all_tasks_blocked()
            found.append((sum(asked), len(list((host.target / STAGING).iterdir()))))
            nursery.cancel_scope.cancel()
        await channel.send(Cancel(task="t1"))

    assert (await run_against(host.task(tree), host, primary)).reason == "Cancelled"
    return found[0]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    without_threads(monkeypatch)
    return Host(tmp_path / "host")


async def test_no_more_than_a_window_is_asked_for(host: Host) -> None:
    asked, _ = await asked_without_an_answer(host, files(64, 1024 * 1024))
    assert asked == WINDOW


async def test_no_more_files_are_under_way_than_may(host: Host) -> None:
    _, under_way = await asked_without_an_answer(host, files(2 * MAX_PARTIAL, MIN_BLOCK + 1))
    assert under_way == MAX_PARTIAL


@pytest.mark.parametrize("hours", [23, 25])
async def test_a_tree_may_be_hashed_for_a_day_and_no_longer(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, hours: int
) -> None:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    source = write_tree(tmp_path / "source", FIRST)
    gate = trio.Event()
    growing = await begin(source, gate)
    ends: list[str] = []

    async def copy() -> None:
        try:
            ends.append((await first_copy(growing, host)).state)
        except* TransferFailed as group:
            ends.extend(str(error) for error in group.exceptions)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        nursery.start_soon(copy)
        await trio.sleep(hours * 3600)
        gate.set()
    if hours < 24:
        assert ends == ["SUCCESS"]
        assert read_tree(host.target) == read_tree(source)
    else:
        assert "the primary has not told of a whole tree for 24 h" in ends
        assert [path.name for path in host.target.iterdir()] == [STAGING]
