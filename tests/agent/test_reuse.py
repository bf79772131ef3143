"""Whole tasks where the target has most of what is wanted already: how much still travels."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.index import STAGING
from agent.wire.messages import AnyMessage
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel

MIB = 1024 * 1024


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


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


async def test_a_transfer_that_was_cut_goes_on_where_it_was(host: Host, tmp_path: Path) -> None:
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
