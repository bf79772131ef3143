"""Frames as agents get them: compressed where that was agreed upon and pays, read once for several agents."""

import os
import shutil
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from agent import transfer
from agent.blocks import FRAME_TARGET, MILESTONE_BLOCKS, block_length
from agent.wire.bulk import BlockRequest, BlockResponseBin
from agent.wire.messages import DEFLATE, AnyMessage
from reconciler.sync.bandwidth import FREELY, MEASURED_BYTES, SLOW, Bucket, Line, Throttle
from reconciler.sync.frames import UNSERVED, Frame, Frames, Part
from reconciler.sync.serving import Compression, TreeSource
from tests.agent.syncing import Host, Outcome, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel

MIB = 1024 * 1024
TEXT = b"".join(b"line %d of a file that shrinks\n" % number for number in range(60_000))
TREE: dict[str, object] = {
    "large": TEXT,
    "packed already": os.urandom(300_000),
    **{f"small {number:02}": TEXT[number * 1000 : number * 1500] for number in range(1, 40)},
}
SIZE = sum(len(content) for content in TREE.values() if isinstance(content, bytes))


async def copy(
    tmp_path: Path, compression: Compression, throttle: Throttle = FREELY, **changes: Any
) -> Outcome:
    source = await TreeSource.build(write_tree(tmp_path / "source", TREE))
    host = Host(tmp_path / "host")
    changes.setdefault("features", (DEFLATE,))
    outcome = await synchronise(source.within(throttle, compression), host, **changes)
    if outcome.report.state == "SUCCESS":
        assert read_tree(host.target) == TREE
        assert outcome.report.bytes_received == outcome.from_primary.payload_bytes
    return outcome


async def test_what_shrinks_travels_compressed(tmp_path: Path) -> None:
    outcome = await copy(tmp_path, "on")
    assert outcome.state == "SUCCESS"
    assert 300_000 < outcome.from_primary.payload_bytes < SIZE / 2


@pytest.mark.parametrize("agreed", ["auto", "off", "refused"])
async def test_otherwise_it_travels_as_it_is(tmp_path: Path, agreed: str) -> None:
    """On a line that is fast, where the spec says so, and to an agent that is too old."""
    features = () if agreed == "refused" else (DEFLATE,)
    compression: Compression = "off" if agreed == "off" else "on" if agreed == "refused" else "auto"
    outcome = await copy(tmp_path, compression, features=features)
    assert outcome.state == "SUCCESS"
    assert outcome.from_primary.payload_bytes == SIZE


async def test_a_thin_line_is_made_the_most_of(tmp_path: Path) -> None:
    outcome = await copy(tmp_path, "auto", Throttle((Bucket(SLOW),)))
    assert outcome.state == "SUCCESS"
    assert outcome.from_primary.payload_bytes < SIZE / 2


async def test_a_line_is_slow_by_its_limit_or_once_that_was_seen() -> None:
    assert Line(Throttle((Bucket(SLOW), Bucket(10 * SLOW)))).is_slow
    line = Line(Throttle((Bucket(10 * SLOW),)))
    seen: list[bool] = []
    for size, seconds in ((MEASURED_BYTES - 1, 1000), (1, 0), (SLOW * 2000, 10)):
        line.took(size, seconds)
        seen.append(line.is_slow)
    assert seen == [False, True, False]


def bomb(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
    if not isinstance(message, BlockResponseBin) or not message.unpacked:
        return [(message, payload)]
    packed = zlib.compress(bytes(100 * MIB), 9)
    return [(msgspec.structs.replace(message, size=len(packed)), packed)]


def unasked(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
    if not isinstance(message, BlockResponseBin) or payload is None:
        return [(message, payload)]
    packed = zlib.compress(payload)
    return [(msgspec.structs.replace(message, size=len(packed), unpacked=len(payload)), packed)]


async def test_a_bomb_ends_the_task(tmp_path: Path) -> None:
    def prepare(primary: MemoryChannel, agent: MemoryChannel) -> None:
        primary.alter = bomb

    outcome = await copy(tmp_path, "on", prepare=prepare)
    assert outcome.state == "FAILED ProtocolError"
    assert "does not hold what it announced" in outcome.report.message
    assert not any(content is not None for content in read_tree(tmp_path / "host/srv/app").values())


async def test_nobody_is_sent_what_was_not_agreed_upon(tmp_path: Path) -> None:
    def prepare(primary: MemoryChannel, agent: MemoryChannel) -> None:
        primary.alter = unasked

    outcome = await copy(tmp_path, "off", features=(), prepare=prepare)
    assert outcome.state == "FAILED ProtocolError"
    assert "not agreed upon" in outcome.report.message


async def test_several_agents_get_what_was_read_once(tmp_path: Path) -> None:
    source = (await TreeSource.build(write_tree(tmp_path / "source", TREE))).within(FREELY, "on")
    hosts = [Host(tmp_path / f"host{number}") for number in range(5)]
    alone = await synchronise(source, Host(tmp_path / "alone"), features=(DEFLATE,))
    once = source.frames.reads
    assert once == alone.from_primary.count("BlockResponseBin")

    async def run(host: Host) -> None:
        outcome = await synchronise(source, host, features=(DEFLATE,))
        assert outcome.state == "SUCCESS"

    with source.frames.in_use(), source.frames.in_use():
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(run, host)
        assert source.frames.reads == 2 * once
    for host in hosts:
        assert read_tree(host.target) == TREE


async def test_frames_are_kept_within_a_bound_and_while_they_are_of_use() -> None:
    frames = Frames(kept_bytes=250)
    reads: list[int] = []

    async def get(number: int, length: int = 100) -> Frame:
        part: Part = ((number, 0, 100),)

        async def read() -> Frame:
            reads.append(number)
            await trio.lowlevel.checkpoint()
            return Frame(((number, 0, length),), bytes(max(length, 0)))

        return await frames.get(part, False, read)

    await get(1)
    await get(1)
    assert reads == [1, 1]  # for one alone nothing is kept
    with frames.in_use(), frames.in_use():
        for number in (1, 2, 2, 1, 3, 1, 2):
            await get(number)
        assert reads == [1, 1, 1, 2, 3, 2]
        await get(4, UNSERVED)
        await get(4, UNSERVED)
        assert reads[-2:] == [4, 4]  # what could not be read may be there the next time
    with frames.in_use(), frames.in_use():
        await get(2)
    assert reads[-1] == 2


async def test_a_reader_that_is_called_off_leaves_the_frame_to_the_next() -> None:
    frames = Frames()
    begun = trio.Event()
    part: Part = ((0, 0, 1),)

    async def hang() -> Frame:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    async def read() -> Frame:
        return Frame(part, b"x")

    got: list[Frame] = []

    async def wait() -> None:
        got.append(await frames.get(part, False, read))

    with frames.in_use(), frames.in_use():
        async with trio.open_nursery() as nursery, trio.open_nursery() as first:
            first.start_soon(frames.get, part, False, hang)
            await begun.wait()
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
    assert got == [Frame(part, b"x")]


def noting(requests: list[BlockRequest]) -> Callable[[MemoryChannel, MemoryChannel], None]:
    """Has what an agent asks for noted."""

    def note(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
        if isinstance(message, BlockRequest):
            requests.append(message)
        return [(message, payload)]

    def prepare(primary: MemoryChannel, agent: MemoryChannel) -> None:
        agent.alter = note

    return prepare


async def test_a_frame_is_read_once_however_full_the_windows_of_agents_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much room a window has depends on how fast an agent writes; what it asks for at once must not."""
    monkeypatch.setattr(transfer, "WINDOW", 2 * MIB)
    tree: dict[str, object] = {f"f{number:02}": os.urandom(number * 7919 % 300_000) for number in range(99)}
    tree["large"] = os.urandom(3 * MIB)
    source = await TreeSource.build(write_tree(tmp_path / "source", tree))
    asked: dict[str, list[BlockRequest]] = {name: [] for name in ("a", "b", "c")}

    async def run(name: str, requests: list[BlockRequest]) -> None:
        host = Host(tmp_path / name)
        outcome = await synchronise(source, host, prepare=noting(requests))
        assert outcome.state == "SUCCESS"
        assert read_tree(host.target) == tree

    with source.frames.in_use(), source.frames.in_use():
        async with trio.open_nursery() as nursery:
            for name, requests in asked.items():
                nursery.start_soon(run, name, requests)
    assert asked["a"] == asked["b"] == asked["c"]
    # Each is as full as it can be, and makes one frame.
    sizes = [sum(block_length(source.entries[o].size, n) for o, n in r.blocks) for r in asked["a"]]
    assert source.frames.reads == len(sizes)
    assert all(size + following > FRAME_TARGET for size, following in pairwise(sizes))
    assert max(sizes) <= FRAME_TARGET


async def test_agents_that_began_with_different_blocks_soon_ask_for_the_same(tmp_path: Path) -> None:
    tree: dict[str, object] = {"a": os.urandom(300_000), "large": os.urandom(20 * MIB)}
    source = await TreeSource.build(write_tree(tmp_path / "source", tree))
    hosts = [Host(tmp_path / "empty"), Host(tmp_path / "some")]
    shutil.copytree(source.directory, hosts[1].target, ignore=shutil.ignore_patterns("large"))
    asked: list[list[BlockRequest]] = []
    with source.frames.in_use(), source.frames.in_use():
        for host in hosts:
            asked.append([])
            outcome = await synchronise(source, host, prepare=noting(asked[-1]))
            assert outcome.state == "SUCCESS"
            assert read_tree(host.target) == tree
    blocks = [[request.blocks for request in requests] for requests in asked]
    assert blocks[0][0] != blocks[1][0]
    later = [[part for part in parts if part[0][1] >= MILESTONE_BLOCKS] for parts in blocks]
    assert later[0] == later[1]
    assert source.frames.reads == len(blocks[0]) + len(blocks[1]) - len(later[0])
