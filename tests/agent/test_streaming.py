"""A first copy of a tree that the primary still hashes."""

import errno
import hashlib
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent.errors import TransferFailed
from agent.index import STAGING
from agent.manifest import load, manifest_path
from agent.wire.bulk import PIECES, BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.messages import (
    NO_TIMES,
    RUNS,
    STREAM,
    AnyMessage,
    Cancel,
    IndexEnd,
    IndexFile,
    SyncStart,
    TaskReport,
)
from reconciler.errors import LookFailed
from reconciler.sync import streamed
from reconciler.sync.serving import NotStreamed, TreeSource, serve_task
from reconciler.sync.streamed import Attempts
from tests.agent.inthread import without_threads
from tests.agent.streams import STREAMED, begin, first_copy
from tests.agent.syncing import (
    AFTER,
    Host,
    Tree,
    read_tree,
    run_against,
    synchronise,
    without_times,
    write_tree,
)
from tests.channelpair import channel_pair

TREE: Tree = {
    "a/first": b"first" * 1000,
    "b/empty": b"",
    "c/big": os.urandom(700_000),
    "d/hole": bytes(400_000),
    "link": "a/first",
    "none": None,
    "z/last": b"last" * 5000,
}


def staged(host: Host) -> set[bytes]:
    """What the complete files in staging hold."""
    staging = host.target / STAGING
    return {path.read_bytes() for path in staging.iterdir()} if staging.exists() else set()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what worker threads write to the disk
            await trio.sleep(0.01)


@pytest.fixture
def file_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)


@pytest.mark.usefixtures("file_by_file")
async def test_files_arrive_before_the_last_is_hashed_and_none_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "TELL_SECONDS", 0.01)
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    gate = trio.Event()
    growing = await begin(source, gate)
    reports: list[TaskReport] = []

    async def copy() -> None:
        reports.append(await first_copy(growing, host))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        nursery.start_soon(copy)
        early = {content for name, content in TREE.items() if isinstance(content, bytes) and name[0] < "z"}
        await until(lambda: early <= staged(host))
        assert [path.name for path in host.target.iterdir()] == [STAGING]
        gate.set()
    (report,) = reports
    whole = await growing.whole()
    assert (report.state, report.established) == ("SUCCESS", whole.tree)
    assert whole.tree == (await TreeSource.build(source)).tree
    assert read_tree(host.target) == read_tree(source)
    assert report.bytes_received + report.bytes_reused == whole.bytes
    # All is of one time, in the manifest too.
    manifest = load(manifest_path(host.state, str(host.target)))
    assert manifest is not None
    assert manifest.made
    noted = {placed.entry.path: placed.entry.mtime_ns for placed in manifest.placed}
    files = {path for path in noted if path.partition("/")[0] != "none" and TREE.get(path) is not None}
    times = {(host.target / path).lstat().st_mtime_ns for path in files}
    assert times == {noted[path] for path in files}
    assert len(times) == 1
    # What was placed is known: the next task has nothing to do, and a change goes the ordinary way.
    nothing = await synchronise(source, host)
    assert nothing.from_agent.messages == ["TaskReport"]
    assert (nothing.report.files_read, nothing.report.files_known) == (0, whole.files)
    (source / "z/last").write_bytes(b"other")
    other = without_times(await TreeSource.build(source))
    changed = await synchronise(other, host, features=(RUNS, PIECES, NO_TIMES))
    assert (changed.state, changed.report.files_written) == ("SUCCESS", 1)


@pytest.mark.parametrize("wrong", ["digest", "content", "path", "order", "bytes"])
async def test_what_is_wrong_places_nothing(tmp_path: Path, wrong: str) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host", name="above/app")
    growing = await begin(source)
    await growing.run()

    def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
        if isinstance(message, IndexEnd) and wrong == "digest":
            message = msgspec.structs.replace(message, tree=hashlib.sha256(b"").digest())
        if isinstance(message, BlockResponseBin) and payload and wrong == "content":
            payload = bytes(len(payload))
        if isinstance(message, IndexFile) and wrong == "path":
            odd = msgspec.structs.replace(message.entries[-1], path="z/../../out")
            message = msgspec.structs.replace(message, entries=(*message.entries[:-1], odd))
        if isinstance(message, IndexFile) and wrong == "order":
            message = msgspec.structs.replace(message, entries=message.entries[::-1])
        return [(message, payload)]

    if wrong == "bytes":
        host.allow(max_total_size=1000)
    report = await first_copy(growing, host, alter=alter)
    assert report.state == "FAILED"
    reasons = {"content": "VerificationFailed", "path": "PathRefused", "order": "PathRefused"}
    assert report.reason == reasons.get(wrong, "ProtocolError")
    # Nor is anything there that was not before: no directory, and no record of one.
    assert list((host.base / "srv").iterdir()) == list(host.state.glob("targets/*")) == []
    host.allow(max_total_size=2**30)
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


@pytest.mark.usefixtures("file_by_file")
async def test_what_somebody_puts_there_meanwhile_is_seen(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    gate = trio.Event()
    growing = await begin(source, gate)
    reports: list[TaskReport] = []

    async def copy() -> None:
        reports.append(await first_copy(growing, host, on_local_edit="backup"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        nursery.start_soon(copy)
        await until(lambda: bool(staged(host)))
        same = write_tree(host.target, {"a/first": b"mine", "other/mine": b"mine", "b/empty": b""})
        before = (same / "b/empty").stat().st_ino
        gate.set()
    (report,) = reports
    assert (report.state, report.local_edits, report.foreign) == ("SUCCESS", 1, 1)
    found = read_tree(host.target)
    (backup,) = [path for path in found if path.startswith("a/first.")]
    assert (found.pop(backup), found.pop("other/mine"), found.pop("other")) == (b"mine", b"mine", None)
    assert found == read_tree(source)
    assert (host.target / "b/empty").stat().st_ino == before


@pytest.mark.parametrize("at", [1, 3, 5])
async def test_an_error_while_it_is_placed_is_mended_by_the_next_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    growing = await begin(source)
    await growing.run()
    rename, calls = os.rename, itertools.count(1)

    def fail(*names: Any, **fds: Any) -> None:
        if fds and next(calls) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(*names, **fds)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fail)
        report = await first_copy(growing, host)
    assert (report.state, report.reason) == ("FAILED", "InputOutputError")
    there, wanted = read_tree(host.target), read_tree(source)
    assert there.items() <= wanted.items()
    assert sum(content is not None for content in there.values()) == at - 1
    mended = await synchronise(await growing.whole(), host)
    assert (mended.state, mended.report.local_edits, mended.report.foreign) == ("SUCCESS", 0, 0)
    assert read_tree(host.target) == wanted


@pytest.mark.parametrize("changes", [{"strategy": "release"}, {"features": (STREAM, PIECES)}], ids=str)
async def test_a_stream_is_not_taken_where_the_tree_or_its_times_must_be_known(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    host = Host(tmp_path / "host")
    starts: list[SyncStart] = []

    async def primary(channel: Channel) -> None:
        message, _ = await channel.receive()
        assert isinstance(message, SyncStart)
        starts.append(message)
        await channel.send(Cancel(task=message.task))
        await channel.receive()

    task = host.task(os.urandom(32), **{"features": STREAMED, **changes})
    assert (await run_against(task, host, primary)).reason == "Cancelled"
    assert [STREAM in start.features for start in starts] == [False]


async def test_a_disk_that_cannot_read_the_tree_ends_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "source", TREE)
    growing = await begin(source)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    await growing.run()
    assert growing.failed
    for waits in (growing.whole, partial(TreeSource.build, source)):
        with pytest.raises(LookFailed, match=f"cannot read {source}/a/first: Input/output error"):
            await waits()


@pytest.mark.usefixtures("file_by_file")
async def test_where_there_may_be_no_room_files_come_after_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_threads(monkeypatch)
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    gate = trio.Event()
    growing = await begin(source, gate)
    asking, asked = os.fstatvfs, itertools.count()

    def full_at_first(fd: int) -> object:
        return asking(fd) if next(asked) else SimpleNamespace(f_bfree=0, f_bavail=0, f_frsize=4096)

    monkeypatch.setattr(os, "fstatvfs", full_at_first)
    messages: list[str] = []
    reports: list[TaskReport] = []

    def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
        messages.append(type(message).__name__)
        return [(message, payload)]

    async def copy() -> None:
        reports.append(await first_copy(growing, host, alter=alter))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        nursery.start_soon(copy)
        await wait_all_tasks_blocked()
        # All that is hashed so far is told, and nothing of it is asked for.
        assert set(messages) == {"IndexBegin", "IndexFile"}
        assert messages.count("IndexFile") > 3
        gate.set()
    assert reports[0].state == "SUCCESS"
    assert messages.index("BlockResponseBin") > messages.index("IndexEnd")
    assert read_tree(host.target) == read_tree(source)


async def test_a_cut_is_resumed_with_what_is_staged(tmp_path: Path) -> None:
    small = {f"a{n:02}": os.urandom(50_000) for n in range(40)}
    large = {f"f{n:02}": os.urandom(900_000) for n in range(20)}
    source = write_tree(tmp_path / "source", {**small, **large})
    host = Host(tmp_path / "host")
    growing = await begin(source)
    await growing.run()
    sent: list[AnyMessage] = []

    def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
        if isinstance(message, BlockResponseBin):
            sent.append(message)
            if len(sent) == 8:
                raise TransferFailed("cut")
        return [(message, payload)]

    with pytest.raises((TransferFailed, BaseExceptionGroup)):
        await first_copy(growing, host, alter=alter)
    assert [path.name for path in host.target.iterdir()] == [STAGING]
    assert staged(host) & set(small.values())
    done = await synchronise(await growing.whole(), host)
    assert done.state == "SUCCESS"
    assert done.report.bytes_reused > 0
    assert read_tree(host.target) == read_tree(source)


@pytest.mark.parametrize("there", ["somebody's", "ours", "staged", "older"])
async def test_where_it_cannot_be_streamed_the_whole_tree_is_sent(tmp_path: Path, there: str) -> None:
    source = write_tree(tmp_path / "source", AFTER)
    host = Host(tmp_path / "host")
    features: tuple[str, ...] = (RUNS, PIECES, NO_TIMES, STREAM)
    if there == "somebody's":
        write_tree(host.target, {"foreign": b"1"})
    elif there == "ours":
        await synchronise(write_tree(tmp_path / "before", {"old": b"1"}), host)
    elif there == "staged":
        write_tree(host.target, {STAGING: None})
    else:
        features = (RUNS, PIECES)
    growing = await begin(source)
    asked: list[tuple[str, str]] = []

    async def send(attempt: str, id: str, given: TreeSource) -> TaskReport:
        asked.append((attempt, id))
        if given.growing is None:
            return (await synchronise(given, host)).report
        try:
            assert given.growing is growing
            return await first_copy(growing, host, features=features)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        attempts = Attempts(growing.source, send)
        report = await attempts("t-1")
        assert (await attempts("t-2")).state == "SUCCESS"
    assert (report.state, report.established) == ("SUCCESS", (await growing.whole()).tree)
    assert asked == [("t-1", "t-1"), ("t-1", "t-1w"), ("t-2", "t-2")]


async def test_an_agent_without_streams_is_not_answered(tmp_path: Path) -> None:
    growing = await begin(write_tree(tmp_path / "source", TREE))
    primary, agent = channel_pair()
    await agent.send(SyncStart(task="t1"))
    with pytest.raises(NotStreamed):
        await serve_task(primary, growing.source)
    assert primary.sent.messages == []


@pytest.mark.usefixtures("file_by_file")
async def test_a_file_that_changed_while_it_was_hashed_ends_the_task(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    gate = trio.Event()
    growing = await begin(source, gate)
    failed: list[Exception] = []

    async def copy() -> None:
        try:
            await first_copy(growing, host)
        except* LookFailed as group:
            failed.extend(group.exceptions)
        except* TransferFailed:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        nursery.start_soon(copy)
        await until(lambda: bool(staged(host)))
        (source / "z/last").write_bytes(b"changed")
        gate.set()
    assert failed
    assert [path.name for path in host.target.iterdir() if path.name != STAGING] == []
    with pytest.raises(LookFailed):
        await growing.whole()
