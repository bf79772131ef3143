"""Whole tasks where the target has most of what is wanted already: how much still travels."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent import transfer
from agent.blocks import MIN_BLOCK
from agent.errors import RemoteProtocolError
from agent.index import STAGING, file_entry
from agent.wire.bulk import BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.messages import AnyMessage
from reconciler.sync.parts import check_parts
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel

MIB = 1024 * 1024


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


OLD = noise(10 * MIB + 12_345)

EDITS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "a-byte-at-the-front": (lambda old: b"!" + old, 4096 + 1),
    "a-byte-less-at-the-front": (lambda old: old[1:], 4096),
    "some-at-the-front": (lambda old: noise(100_000, 2) + old, 110_000),
    "a-byte-in-the-middle": (lambda old: old[:5_000_000] + b"!" + old[5_000_000:], 2 * 4096),
    "a-cut-in-the-middle": (lambda old: old[:5_000_000] + old[5_300_000:], 2 * 4096),
    "appended": (lambda old: old + b"more", 12_349),
    "cut-at-the-end": (lambda old: old[:-70_000], 4096),
    "one-byte-changed": (lambda old: old[:5_000_000] + b"!" + old[5_000_001:], 4096),
    "insertions-everywhere": (
        lambda old: b"1" + old[:3_000_000] + b"22" + old[3_000_000:7_000_000] + b"333" + old[7_000_000:],
        6 * 4096,
    ),
    "an-insertion-and-a-cut-of-the-same-size": (
        lambda old: b"12345" + old[:6_000_000] + old[6_000_005:],
        5 * 4096,
    ),
    "halves-swapped": (lambda old: old[5_000_000:] + old[:5_000_000], 12 * MIB),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_sends_little_more_than_itself(host: Host, tmp_path: Path, edit: str) -> None:
    change, most = EDITS[edit]
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "file").write_bytes(change(OLD))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received <= most


async def test_a_moved_directory_moves_nothing_over_the_wire(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a/big": OLD, "a/small": b"small"})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "a").rename(source / "b")
    outcome = await synchronise(source, host)
    assert (outcome.state, outcome.report.bytes_received) == ("SUCCESS", 0)
    assert read_tree(host.target) == read_tree(source)


async def test_zeros_do_not_travel_and_take_no_room(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"data": b"x"})
    with (source / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(6 * MIB)
        file.write(noise(200_000))
        file.truncate(40 * MIB + 5)
    (source / "written-zeros").write_bytes(bytes(3 * MIB))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received < MIB
    assert (host.target / "sparse").stat().st_blocks * 512 < MIB
    assert (host.target / "written-zeros").stat().st_blocks * 512 <= 4096
    # Some of it becomes data, some data zeros.
    with (source / "sparse").open("r+b") as file:
        file.write(bytes(4))
        file.seek(20 * MIB)
        file.write(b"middle")
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert (host.target / "sparse").stat().st_blocks * 512 < MIB


async def test_a_transfer_that_was_cut_goes_on_where_it_was(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a window that no frame is sent before the one ahead of it was written.
    monkeypatch.setattr(transfer, "WINDOW", MIB)
    source = write_tree(tmp_path / "source", {"large": OLD, "replaced": noise(MIB, 5)})
    write_tree(host.target, {"replaced": b"old"})

    def cut_after(frames: int) -> Callable[[MemoryChannel, MemoryChannel], None]:
        def prepare(primary: MemoryChannel, _agent: MemoryChannel) -> None:
            def alter(message: AnyMessage, content: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
                if primary.sent.count("BlockResponseBin") == frames:
                    primary.cut()
                return [(message, content)]

            primary.alter = alter

        return prepare

    for _ in range(2):
        with pytest.raises(BaseExceptionGroup):
            await synchronise(source, host, prepare=cut_after(4))
        assert set(read_tree(host.target)) - {"replaced"} <= {
            STAGING,
            *(path for path in read_tree(host.target) if path.startswith(STAGING)),
        }
        assert (host.target / "replaced").read_bytes() == b"old"
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received < len(OLD) + MIB - 5 * MIB
    assert outcome.report.bytes_reused > 5 * MIB


async def test_what_was_left_of_a_cut_is_verified(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"large": OLD})

    def cut(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, content: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if primary.sent.count("BlockResponseBin") == 4:
                primary.cut()
            return [(message, content)]

        primary.alter = alter

    with pytest.raises(BaseExceptionGroup):
        await synchronise(source, host, prepare=cut)
    (left,) = (host.target / STAGING).iterdir()
    with left.open("r+b") as file:
        for start in range(0, left.stat().st_size, 1000):
            file.seek(start)
            file.write(b"!")
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_reused == 0


@pytest.mark.parametrize(
    ("lie", "state"),
    [
        ("wrong-digests", "SUCCESS"),
        ("wrong-ranges", "SUCCESS"),
        ("nothing", "SUCCESS"),
        ("too-short", "FAILED"),
        ("of-another-block", "FAILED"),
        ("twice", "FAILED"),
    ],
)
async def test_a_primary_that_describes_wrongly_gains_nothing(
    host: Host, tmp_path: Path, lie: str, state: str
) -> None:
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "file").write_bytes(OLD[:5_000_000] + b"!" + OLD[5_000_001:])
    described = 5_000_000 // MIN_BLOCK

    def prepare(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, content: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if isinstance(message, BlockResponseBin) and message.ranges and lie == "wrong-ranges":
                assert content is not None
                return [(message, bytes(len(content)))]
            if not isinstance(message, BlockDescriptions):
                return [(message, content)]
            ((ordinal, number, digests, anchors),) = message.blocks
            assert number == described
            wrong = {
                "wrong-digests": (ordinal, number, bytes(8) + digests[8:], bytes(len(anchors))),
                "nothing": (ordinal, number, b"", b""),
                "too-short": (ordinal, number, digests[8:], anchors),
                "of-another-block": (ordinal, number + 1, digests, anchors),
            }.get(lie)
            if wrong is not None:
                message = msgspec.structs.replace(message, blocks=(wrong,))
            return [(message, content)] * (2 if lie == "twice" else 1)

        primary.alter = alter

    outcome = await synchronise(source, host, prepare=prepare)
    assert outcome.report.state == state
    assert read_tree(host.target) == (read_tree(source) if state == "SUCCESS" else {"file": OLD})


ENTRIES = [
    file_entry("a", mode=0o644, size=1 * MIB, mtime_ns=1, blocks=bytes(32 * 8)),
    file_entry("b", mode=0o644, size=5, mtime_ns=1, blocks=bytes(32)),
]


@pytest.mark.parametrize(
    "request_",
    [
        DescribeBlocks(task="t", blocks=()),
        DescribeBlocks(task="t", blocks=((0, 8),)),
        DescribeBlocks(task="t", blocks=((0, -1),)),
        DescribeBlocks(task="t", blocks=((2, 0),)),
        DescribeBlocks(task="t", blocks=((-1, 0),)),
        DescribeBlocks(task="t", blocks=((1, 0),)),
        DescribeBlocks(task="t", blocks=((0, 0),) * 257),
        BlockRequest(task="t", blocks=((0, 0),), ranges=((0, 0, 1),)),
        BlockRequest(task="t", blocks=(), ranges=((0, 0, 0),)),
        BlockRequest(task="t", blocks=(), ranges=((0, -1, 5),)),
        BlockRequest(task="t", blocks=(), ranges=((0, MIB - 1, 2),)),
        BlockRequest(task="t", blocks=(), ranges=((0, 0, 5 * MIB),)),
        BlockRequest(task="t", blocks=(), ranges=((2, 0, 1),)),
        BlockRequest(task="t", blocks=(), ranges=((0, 0, 1),) * 4097),
    ],
    ids=range(14),
)
def test_a_primary_refuses_what_no_agent_asks(request_: DescribeBlocks | BlockRequest) -> None:
    with pytest.raises(RemoteProtocolError):
        check_parts(request_, ENTRIES)


async def test_more_files_of_several_blocks_than_may_be_under_way(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are begun as others are done: on a first copy, and where some have a part here already."""
    source = write_tree(
        tmp_path / "source", {f"f{number:03}": noise(MIN_BLOCK + 1, number) for number in range(150)}
    )
    staged: list[int] = []

    def prepare(_primary: MemoryChannel, agent: MemoryChannel) -> None:
        def note(message: AnyMessage, content: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if isinstance(message, BlockRequest):
                staged.append(sum(path.is_file() for path in host.target.glob(f"{STAGING}/*")))
            return [(message, content)]

        agent.alter = note

    with monkeypatch.context() as few:
        few.setattr(transfer, "MAX_PARTIAL", 12)
        outcome = await synchronise(source, host, prepare=prepare)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert 7 <= max(staged) <= 12
    for number in range(150):
        (source / f"f{number:03}").write_bytes(noise(MIN_BLOCK + 1, number)[:-1] + b"!")
        if number % 3 == 0:
            (host.target / f"f{number:03}").unlink()
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
