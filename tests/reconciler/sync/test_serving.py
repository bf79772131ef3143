"""What an agent gets of a tree for its requests, and what an agent can do wrong."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent.blocks import FRAME_TARGET, MIN_BLOCK
from agent.errors import RemoteProtocolError, TransferFailed
from agent.index import split_batches
from agent.wire.bulk import BlockRequest, BlockResponseBin
from agent.wire.messages import (
    AnyMessage,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    Ping,
    SyncStart,
    TaskReport,
)
from reconciler.errors import LookFailed
from reconciler.sync import telling
from reconciler.sync.serving import QUEUED_REQUESTS, TreeSource, serve_task
from tests.agent.inthread import without_threads
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel, channel_pair

REPORT = TaskReport(task="t1", state="SUCCESS")


class Agent:
    """Speaks an agent's part by hand."""

    def __init__(self, channel: MemoryChannel) -> None:
        self.channel = channel

    async def start(self) -> list[Entry]:
        await self.channel.send(SyncStart(task="t1"))
        begin, _ = await self.channel.receive()
        assert isinstance(begin, IndexBegin)
        entries: list[Entry] = []
        while True:
            message, _ = await self.channel.receive()
            if isinstance(message, IndexEnd):
                assert len(entries) == begin.entries
                return entries
            assert isinstance(message, IndexFile)
            entries += message.entries

    async def get(self, *blocks: tuple[int, int]) -> dict[tuple[int, int], bytes | None]:
        await self.channel.send(BlockRequest(task="t1", blocks=blocks))
        found: dict[tuple[int, int], bytes | None] = {}
        while len(found) < len(set(blocks)):
            message, payload = await self.channel.receive()
            assert isinstance(message, BlockResponseBin)
            assert payload is not None
            assert len(payload) == message.size
            at = 0
            for ordinal, number, length in message.blocks:
                found[ordinal, number] = None if length == -1 else payload[at : at + length]
                at += max(length, 0)
            assert at == message.size
        return found


async def serving(source: TreeSource, script: object) -> TaskReport:
    primary, agent = channel_pair()
    result: list[TaskReport] = []

    async def serve() -> None:
        result.append(await serve_task(primary, source))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await script(Agent(agent))  # type: ignore[operator]
            await agent.send(REPORT)
    return result[0]


async def test_index_and_blocks_as_asked(tmp_path: Path) -> None:
    big = os.urandom(3 * MIN_BLOCK + 1)
    root = write_tree(tmp_path / "s", {"big": big, "d/small": b"small", "none": b""})
    source = await TreeSource.build(root)

    async def script(agent: Agent) -> None:
        entries = await agent.start()
        assert tuple(entries) == source.entries
        found = await agent.get((0, 3), (0, 0), (2, 0))
        assert found == {(0, 3): big[-1:], (0, 0): big[:MIN_BLOCK], (2, 0): b"small"}

    assert await serving(source, script) == REPORT


async def test_frames_hold_about_a_mebibyte(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "s", {f"{number:03}": os.urandom(100_000) for number in range(40)})
    source = await TreeSource.build(root)
    primary, end = channel_pair()
    agent = Agent(end)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_task, primary, source)
            await agent.start()
            found = await agent.get(*((number, 0) for number in range(40)))
            await end.send(REPORT)
    assert all(found.values())
    assert primary.sent.count("BlockResponseBin") == -(-40 // (FRAME_TARGET // 100_000))


async def test_what_changed_since_is_not_served_as_what_it_was(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "s", {"a": b"1", "b": b"1", "c": b"1", "d": b"1", "e/f": b"1", "z": b"1"})
    outside = write_tree(tmp_path / "outside", {"f": b"secret"})
    source = await TreeSource.build(root)
    (root / "a").write_bytes(b"22")
    (root / "b").unlink()
    (root / "c").unlink()
    (root / "c").symlink_to(outside / "f")
    (root / "d").unlink()
    os.mkfifo(root / "d")
    (root / "e").rename(root / "g")
    (root / "e").symlink_to(outside)

    async def script(agent: Agent) -> None:
        await agent.start()
        ordinals = [number for number, entry in enumerate(source.entries) if entry.kind == "file"]
        found = await agent.get(*((number, 0) for number in ordinals))
        assert list(found.values()) == [None, None, None, None, None, b"1"]

    assert await serving(source, script) == REPORT


@pytest.mark.parametrize(
    "message",
    [
        BlockRequest(task="t1", blocks=((99, 0),)),
        BlockRequest(task="t1", blocks=((-1, 0),)),
        BlockRequest(task="t1", blocks=((1, 1),)),
        BlockRequest(task="t1", blocks=((1, -1),)),
        BlockRequest(task="t1", blocks=((0, 0),)),
        BlockRequest(task="t1", blocks=()),
        BlockRequest(task="t1", blocks=((1, 0),) * 5000),
        BlockRequest(task="t2", blocks=((1, 0),)),
        SyncStart(task="t1"),
        Ping(sequence=1),
    ],
)
async def test_requests_out_of_place(tmp_path: Path, message: AnyMessage) -> None:
    source = await TreeSource.build(write_tree(tmp_path / "s", {"d": None, "f": b"1"}))

    async def script(agent: Agent) -> None:
        await agent.start()
        await agent.channel.send(message)

    with pytest.RaisesGroup(RemoteProtocolError):
        await serving(source, script)


async def test_blocks_before_the_index(tmp_path: Path) -> None:
    source = await TreeSource.build(write_tree(tmp_path / "s", {"f": b"1"}))

    async def script(agent: Agent) -> None:
        await agent.channel.send(BlockRequest(task="t1", blocks=((0, 0),)))

    with pytest.RaisesGroup(RemoteProtocolError):
        await serving(source, script)


async def test_a_report_at_once_needs_nothing(tmp_path: Path) -> None:
    source = await TreeSource.build(write_tree(tmp_path / "s", {"f": b"1"}))

    async def script(agent: Agent) -> None:
        pass

    assert await serving(source, script) == REPORT


async def test_a_report_ends_it_while_blocks_are_still_asked_for(tmp_path: Path) -> None:
    source = await TreeSource.build(write_tree(tmp_path / "s", {"f": os.urandom(8 * MIN_BLOCK)}))
    descriptors = len(os.listdir("/proc/self/fd"))

    async def script(agent: Agent) -> None:
        await agent.start()
        for _ in range(6):
            await agent.channel.send(BlockRequest(task="t1", blocks=tuple((0, n) for n in range(8))))

    assert await serving(source, script) == REPORT
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_session_that_ends(tmp_path: Path) -> None:
    source = await TreeSource.build(write_tree(tmp_path / "s", {"f": b"1"}))

    async def script(agent: Agent) -> None:
        await agent.start()
        agent.channel.cut()
        await trio.sleep_forever()

    with pytest.RaisesGroup(TransferFailed):
        await serving(source, script)


async def test_a_directory_that_went_away_meanwhile(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "s", {"f": b"1"})
    source = await TreeSource.build(root)
    root.rename(tmp_path / "elsewhere")
    primary, _agent = channel_pair()
    with pytest.raises(LookFailed):
        await serve_task(primary, source)


async def test_many_agents_are_served_from_one_source(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "s", {f"{n}": os.urandom(1000) for n in range(50)})
    source = await TreeSource.build(root)

    async def script(agent: Agent) -> None:
        entries = await agent.start()
        found = await agent.get(*((number, 0) for number in range(50)))
        for number, entry in enumerate(entries):
            content = found[number, 0]
            assert content is not None
            assert hashlib.sha256(content).digest() == entry.blocks

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(serving, source, script)


def test_an_index_of_the_largest_file_fits_a_frame() -> None:
    largest = Entry(path="x" * 255, kind="file", size=64 * 1024**3, blocks=b"x" * 16384 * 32)
    message = IndexFile(task="t" * 64, entries=(largest,))
    assert len(msgspec.msgpack.encode(message)) < 1024 * 1024


async def test_an_agent_that_asks_and_never_reads_soon_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_threads(monkeypatch)
    source = await TreeSource.build(write_tree(tmp_path / "s", {"a": b"1" * 1000}))
    primary, agent = channel_pair()
    sent: list[BlockRequest] = []
    wanted = 200

    async def ask() -> None:
        for _ in range(wanted):
            request = BlockRequest(task="t1", blocks=((0, 0),))
            await agent.send(request)
            sent.append(request)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_task, primary, source)
            await agent.send(SyncStart(task="t1"))
            for _ in range(3):
                await agent.receive()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            # Some more are on their way there, or are being answered.
            assert QUEUED_REQUESTS < len(sent) < 2 * QUEUED_REQUESTS
            for _ in range(wanted):
                message, payload = await agent.receive()
                assert isinstance(message, BlockResponseBin)
                assert payload == b"1" * 1000
            await agent.send(REPORT)
    assert len(sent) == wanted


async def test_an_index_is_put_into_pieces_once_for_all_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    split = split_batches

    def counted(entries: Sequence[Entry]) -> list[tuple[Entry, ...]]:
        made.append(len(entries))
        return split(entries)

    monkeypatch.setattr(telling, "split_batches", counted)
    source = await TreeSource.build(write_tree(tmp_path / "s", {"a": b"1", "b": b"2"}))
    hosts = [Host(tmp_path / name) for name in ("one", "two", "three")]
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(synchronise, source, host)
    assert [read_tree(host.target) for host in hosts] == [{"a": b"1", "b": b"2"}] * 3
    assert made == [2]
