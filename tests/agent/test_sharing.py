"""Blocks that a host has take no room and no writing where its file system lets files share them."""

import errno
import fcntl
import filecmp
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.blocks import MIN_BLOCK, block_size_for
from agent.errors import TransferFailed
from agent.index import STAGING
from agent.sharing import can_share
from agent.staging import HOLE
from agent.wire.bulk import BlockResponseBin, DescribeBlocks
from agent.wire.messages import AnyMessage
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel
from tests.mounting import small_file_system

MIB = 1024 * 1024
SIZE = 24 * MIB + 12_345
OLD = random.Random(1).randbytes(SIZE)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("xfs")
    make = shutil.which("mkfs.xfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        pytest.skip("there is no mkfs.xfs: install xfsprogs")
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([make, "-q", "-m", "reflink=1", str(image)], check=True)
    try:
        with small_file_system(base / "mounted", "loop", image=image):
            yield base / "mounted"
    finally:
        image.unlink()


@pytest.fixture
def host(xfs: Path, tmp_path: Path) -> Iterator[Host]:
    """On a file system whose files can share their blocks; the state directory is elsewhere."""
    base = xfs / tmp_path.name
    yield Host(base)
    shutil.rmtree(base)


def used(path: Path) -> int:
    os.sync()
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def changed(old: bytes, *at: int) -> bytes:
    new = bytearray(old)
    for offset in at:
        new[offset : offset + 10] = b"0123456789"
    return bytes(new)


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "changed": lambda old: changed(old, 5 * MIB, 11 * MIB + 77),
    "shorter": lambda old: old[: 20 * MIB + 7],
    "shorter-by-blocks": lambda old: old[: 20 * MIB],
    "longer": lambda old: old + b"more",
    "longer-by-much": lambda old: old + random.Random(2).randbytes(2 * MIB),
    "zeros-in-it": lambda old: old[: 4 * MIB] + bytes(3 * MIB) + old[7 * MIB :],
    "zeros-at-the-end": lambda old: old[: -2 * MIB] + bytes(2 * MIB),
    "the-first-block": lambda old: changed(old, 0),
    "the-last-block": lambda old: changed(old, len(old) - 20),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_what_did_not_change_is_shared(host: Host, tmp_path: Path, edit: str) -> None:
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    os.link(host.target / "file", host.base / "before")  # or its room would be free again
    before = used(host.base)
    (source / "file").write_bytes(EDITS[edit](OLD))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert used(host.base) - before < 3 * MIB
    assert (host.base / "before").read_bytes() == OLD


async def test_a_renamed_file_and_one_like_another_take_no_room(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a/file": OLD, "sparse": b""})
    os.truncate(source / "sparse", 5 * MIB)
    assert (await synchronise(source, host)).state == "SUCCESS"
    before = used(host.base)
    (source / "a").rename(source / "b")
    (source / "copy").write_bytes(OLD)
    outcome = await synchronise(source, host)
    assert (outcome.state, outcome.report.bytes_received) == ("SUCCESS", 0)
    assert read_tree(host.target) == read_tree(source)
    assert used(host.base) - before < MIB
    with (host.target / "copy").open("r+b") as file:
        file.write(b"edited")
    assert (host.target / "b/file").read_bytes() == OLD


async def test_blocks_of_a_kept_release_are_shared_and_verified(host: Host, tmp_path: Path) -> None:
    """The old release was edited since in a block that has zeros in the new one."""
    zeros = 3 * MIN_BLOCK + HOLE
    large = OLD[:zeros] + bytes(HOLE) + OLD[zeros + HOLE :]
    for name, tree in {"a": {"large": large}, "b": {"v": b"b"}}.items():
        outcome = await synchronise(write_tree(tmp_path / name, tree), host, strategy="release")
        assert outcome.state == "SUCCESS"
    (first, _) = outcome.report.kept
    with (host.target / "releases" / first.name / "large").open("r+b") as file:
        file.seek(3 * MIN_BLOCK)
        file.write(b"!" * MIN_BLOCK)
    before = used(host.base)
    source = write_tree(tmp_path / "c", {"large": large, "v": b"c"})
    outcome = await synchronise(source, host, strategy="release")
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree((host.target / "current").resolve()) == read_tree(source)
    assert outcome.report.bytes_received == MIN_BLOCK + 1
    assert used(host.base) - before < MIB


async def test_a_transfer_that_was_cut_goes_on_with_what_was_shared(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "file").write_bytes(changed(OLD, 6 * MIB, len(OLD) - 20))

    def cut_at(kind: type[AnyMessage]) -> Callable[[MemoryChannel, MemoryChannel], None]:
        def prepare(primary: MemoryChannel, agent: MemoryChannel) -> None:
            def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
                if isinstance(message, kind):
                    primary.cut()
                return [(message, payload)]

            primary.alter = agent.alter = alter

        return prepare

    for kind in (DescribeBlocks, BlockResponseBin):
        with pytest.raises((TransferFailed, BaseExceptionGroup)):
            await synchronise(source, host, prepare=cut_at(kind))
        for left in (host.target / STAGING).iterdir():
            # What did not come is a hole, and without its last block a file is short.
            assert left.stat().st_size <= len(OLD) // MIN_BLOCK * MIN_BLOCK
            assert 0 < left.stat().st_blocks * 512 <= len(OLD) - MIN_BLOCK
        assert (host.target / "file").read_bytes() == OLD
    before = used(host.base)
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received < 5 * 4096
    assert used(host.base) - before < MIB


async def test_what_is_shared_needs_no_room(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    status = os.statvfs(host.base)
    with (host.base / "filling").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bfree * status.f_frsize - len(OLD) // 2)
    (source / "file").write_bytes(changed(OLD, 6 * MIB))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    (source / "file").write_bytes(random.Random(3).randbytes(SIZE))
    assert (await synchronise(source, host)).state == "FAILED DiskFull"
    assert (host.target / "file").read_bytes() == changed(OLD, 6 * MIB)


@pytest.fixture(params=["here", "tmpfs"])
def unshared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory where files cannot share anything."""
    where = tmp_path / "mounted"
    with ExitStack() as stack:
        if request.param == "tmpfs":
            stack.enter_context(small_file_system(where, "size=400m"))
        else:
            where.mkdir()
        folder = os.open(where, os.O_RDONLY)
        shares = can_share(folder)
        os.close(folder)
        if shares:
            pytest.skip("files can share their blocks there")
        yield where


async def test_where_nothing_can_be_shared_that_is_found_out_once(
    unshared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = fcntl.ioctl

    def watched(fd: int, request: int, *rest: Any) -> Any:
        asked.append(request)
        return real(fd, request, *rest)

    monkeypatch.setattr(fcntl, "ioctl", watched)
    host = Host(unshared / "host")
    source = write_tree(tmp_path / "source", {"one": OLD, "two": OLD[::-1]})
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert asked == []
    for number, name in enumerate(("one", "two")):
        (source / name).write_bytes(changed((source / name).read_bytes(), (5 + number) * MIB))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received < 3 * 4096
    assert len(asked) == 1


def test_the_blocks_are_as_small_as_the_tests_take_them_to_be() -> None:
    assert block_size_for(SIZE) == MIN_BLOCK


async def test_what_a_clone_that_failed_half_way_left_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any file system: the zeros of a block are written where something may be in their place."""
    content = (random.Random(3).randbytes(HOLE) + bytes(HOLE)) * 6 + b"the end"
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"one": content})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "two").write_bytes(content)
    failed: list[int] = []

    def clone(copy: int, _request: int, asked: bytes) -> None:
        _, _, length, offset = struct.unpack("=qQQQ", asked)
        os.pwrite(copy, b"?" * length, offset)
        (host.target / "one").write_bytes(b"!" * len(content))  # so that none of it is as it was
        failed.append(offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "ioctl", clone)
    await synchronise(source, host)
    assert failed
    assert filecmp.cmp(host.target / "two", source / "two", shallow=False)
