"""A transfer that was cut: what came already is not sent again, and verified before it is used."""

import hashlib
import os
from pathlib import Path

import pytest

from agent.blocks import block_count, block_digest, block_length, block_size_for
from agent.errors import TransferFailed
from agent.index import STAGING
from agent.wire.bulk import BlockResponseBin
from agent.wire.messages import AnyMessage
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel

BIG = 40 * 128 * 1024 + 5


def older(path: Path) -> Path:
    """Files of which each is to be replaced, so that none is in place before the transfer's end."""
    return write_tree(path, {"big": b"old", **{f"small/{n:03}": b"old" for n in range(100)}})


def newer(path: Path) -> Path:
    return write_tree(
        path, {"big": os.urandom(BIG), **{f"small/{n:03}": os.urandom(20_000) for n in range(100)}}
    )


async def cut_after(frames: int, source: TreeSource, host: Host) -> None:
    """One attempt, whose session ends when so many frames of blocks were sent."""

    def prepare(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if isinstance(message, BlockResponseBin) and primary.sent.count("BlockResponseBin") == frames:
                primary.cut()
            return [(message, payload)]

        primary.alter = alter

    with pytest.raises((TransferFailed, BaseExceptionGroup)):
        await synchronise(source, host, prepare=prepare)


def staged(host: Host, source: TreeSource) -> int:
    """Bytes of blocks in staging that are those of the source."""
    wanted = {
        block_digest(entry.blocks, number): block_length(entry.size, number)
        for entry in source.entries
        for number in range(block_count(entry.size))
    }
    found: set[bytes] = set()
    for path in (host.target / STAGING).iterdir():
        content = path.read_bytes()
        size = block_size_for(BIG if len(content) > 20_000 else len(content))
        for at in range(0, len(content), size):
            found.add(hashlib.sha256(content[at : at + size]).digest())
    return sum(length for digest, length in wanted.items() if digest in found)


@pytest.mark.parametrize("frames", [1, 3, 5])
async def test_what_came_is_not_sent_again(tmp_path: Path, frames: int) -> None:
    host = Host(tmp_path / "host")
    await synchronise(older(tmp_path / "old"), host)
    before = read_tree(host.target)
    new = newer(tmp_path / "new")
    source = await TreeSource.build(new)
    await cut_after(frames, source, host)
    kept = staged(host, source)
    assert kept > 0
    assert {name: held for name, held in read_tree(host.target).items() if STAGING not in name} == before
    # A second cut loses nothing of the first.
    await cut_after(1, source, host)
    assert staged(host, source) >= kept
    kept = staged(host, source)
    done = await synchronise(source, host)
    assert done.state == "SUCCESS"
    assert (done.report.bytes_received, done.report.bytes_reused) == (source.bytes - kept, kept)
    assert read_tree(host.target) == read_tree(new)


async def test_what_was_changed_meanwhile_is_sent_anew(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await synchronise(older(tmp_path / "old"), host)
    new = newer(tmp_path / "new")
    source = await TreeSource.build(new)
    await cut_after(4, source, host)
    for path in (host.target / STAGING).iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    (host.target / STAGING / "left.0123456789abcdef0123456789abcdef").symlink_to("/etc/passwd")
    (host.target / STAGING / "directory").mkdir()
    done = await synchronise(source, host)
    assert (done.state, done.report.bytes_reused) == ("SUCCESS", 0)
    assert read_tree(host.target) == read_tree(new)


async def test_staging_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await synchronise(older(tmp_path / "old"), host)
    source = await TreeSource.build(newer(tmp_path / "new"))
    await cut_after(4, source, host)
    (host.target / STAGING).chmod(0o777)
    done = await synchronise(source, host)
    assert (done.state, done.report.bytes_reused) == ("SUCCESS", 0)


async def test_a_disk_without_room_for_both_keeps_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path / "host")
    await synchronise(older(tmp_path / "old"), host)
    source = await TreeSource.build(newer(tmp_path / "new"))
    await cut_after(4, source, host)
    real, calls = os.fstatvfs, []

    def little(fd: int) -> os.statvfs_result:
        found = real(fd)
        calls.append((host.target / STAGING).exists())
        blocks = 0 if calls[-1] else found.f_blocks
        return os.statvfs_result((*found[:3], blocks, blocks, *found[5:]))

    monkeypatch.setattr(os, "fstatvfs", little)
    done = await synchronise(source, host)
    assert (done.state, calls) == ("SUCCESS", [True, False])


async def test_nothing_to_do_sweeps_what_is_left(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    old = older(tmp_path / "old")
    await synchronise(old, host)
    await cut_after(2, await TreeSource.build(newer(tmp_path / "new")), host)
    assert (host.target / STAGING).exists()
    assert (await synchronise(old, host)).state == "SUCCESS"
    assert not (host.target / STAGING).exists()
