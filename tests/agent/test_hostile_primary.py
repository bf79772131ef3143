"""A primary that means harm: whatever it sends, nothing outside the target changes, and a report says why."""

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from agent.errors import TransferFailed
from agent.index import STAGING, directory_entry, file_entry, symlink_entry, tree_digest
from agent.task import run_task
from agent.wire.bulk import BlockRequest, BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.messages import (
    AnyMessage,
    Cancel,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    Ping,
    RenderedContent,
    SyncStart,
    TaskReport,
)
from tests.agent.syncing import Host, read_tree, run_against, synchronise, write_tree
from tests.channelpair import MemoryChannel, channel_pair

Script = Callable[[Channel], Awaitable[None]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    write_tree(tmp_path / "outside", {"theirs": b"untouched"})
    return Host(tmp_path / "host")


def a_file(path: str, content: bytes = b"x") -> Entry:
    return file_entry(
        path, mode=0o644, size=len(content), mtime_ns=1, blocks=hashlib.sha256(content).digest()
    )


def sends(
    entries: list[Entry], *answers: tuple[AnyMessage, bytes | None], total: int | None = None
) -> Script:
    """Plays an index and then answers the first request as told."""

    async def script(channel: Channel) -> None:
        message, _ = await channel.receive()
        assert isinstance(message, SyncStart)
        size = sum(entry.size for entry in entries) if total is None else total
        await channel.send(IndexBegin(task="t1", entries=len(entries), bytes=size))
        await channel.send(IndexFile(task="t1", entries=tuple(entries)))
        await channel.send(IndexEnd(task="t1", tree=tree_digest(entries, ignore_permissions=False)))
        if not answers:
            return
        message, _ = await channel.receive()
        assert isinstance(message, BlockRequest)
        for answer, payload in answers:
            await channel.send(answer, payload)

    return script


async def against(host: Host, entries: list[Entry], *answers: tuple[AnyMessage, bytes | None]) -> TaskReport:
    task = host.task(tree_digest(entries, ignore_permissions=False))
    report = await run_against(task, host, sends(entries, *answers))
    assert read_tree(host.base.parent / "outside") == {"theirs": b"untouched"}
    return report


def escapes(host: Host) -> set[str]:
    """Everything in the host's base apart from the target and the agent's state."""
    return {
        path for path in read_tree(host.base) if not path.startswith(("srv/app", "state")) and path != "srv"
    }


@pytest.mark.parametrize(
    "path", ["../escaped", "/tmp/escaped", "a/../../escaped", ".", "", ".trueup-staging/x", "a\0b"]
)
async def test_paths_outside_are_refused(host: Host, path: str) -> None:
    report = await against(host, [msgspec.structs.replace(a_file("a"), path=path)])
    assert (report.state, report.reason) == ("FAILED", "PathRefused")
    assert not host.target.exists()
    assert escapes(host) == set()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(
            st.sampled_from(["..", ".", "", "a", "b", "/", "a\0", "theirs"]), min_size=1, max_size=4
        ).map("/".join),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["file", "directory", "symlink"]),
)
async def test_no_index_leads_out(host: Host, paths: list[str], kind: str) -> None:
    entries = []
    for path in sorted(set(paths)):
        if kind == "directory":
            entries.append(directory_entry(path, mode=0o755, mtime_ns=0))
        elif kind == "symlink":
            entries.append(symlink_entry(path, mtime_ns=0, link="../../../outside"))
        else:
            entries.append(msgspec.structs.replace(a_file("x", b""), path=path, size=0, blocks=b""))
    await against(host, entries)
    assert escapes(host) == set()


@pytest.mark.parametrize(
    "target", ["/etc", "/srv/app", "{root}/../x", "{root}/./app", "{root}x/app", "{root}/a//b", "relative"]
)
async def test_targets_outside_the_roots_are_refused(host: Host, target: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": b"1"})
    target = target.replace("{root}", str(host.base / "srv"))
    outcome = await synchronise(source, host, target_path=target)
    assert outcome.state == "FAILED PathRefused"
    assert read_tree(host.base) == {"srv": None}


async def test_writing_through_a_symlink_of_the_same_index(host: Host) -> None:
    report = await against(
        host, [symlink_entry("d", mtime_ns=0, link="../../../outside"), a_file("d/theirs", b"stolen")]
    )
    assert report.reason == "PathRefused"


@pytest.mark.parametrize(
    "entry",
    [
        msgspec.structs.replace(a_file("a"), mode=0o4755),
        msgspec.structs.replace(a_file("a"), size=2**62, blocks=b"x" * 32),
        msgspec.structs.replace(a_file("a"), size=-5),
        msgspec.structs.replace(a_file("a"), block_size=0),
        msgspec.structs.replace(a_file("a"), blocks=b"short"),
    ],
)
async def test_impossible_entries(host: Host, entry: Entry) -> None:
    assert (await against(host, [entry])).reason == "ProtocolError"
    assert not host.target.exists()


@pytest.mark.parametrize(("entries", "total"), [(2**60, 1), (1, 2**60), (-1, 1), (1, -1)])
async def test_announced_sizes_are_checked_before_anything_is_taken(
    host: Host, entries: int, total: int
) -> None:
    async def script(channel: Channel) -> None:
        await channel.receive()
        await channel.send(IndexBegin(task="t1", entries=entries, bytes=total))

    report = await run_against(host.task(b"\0" * 32), host, script)
    assert report.reason == "ProtocolError"


@pytest.mark.parametrize(
    "message",
    [
        Ping(sequence=1),
        SyncStart(task="t1"),
        IndexEnd(task="t1", tree=b""),
        IndexBegin(task="other", entries=0, bytes=0),
        BlockResponseBin(task="t1", size=0, blocks=()),
    ],
)
async def test_messages_out_of_place(host: Host, message: AnyMessage) -> None:
    async def script(channel: Channel) -> None:
        await channel.receive()
        await channel.send(message)

    assert (await run_against(host.task(b"\0" * 32), host, script)).reason == "ProtocolError"


async def test_a_task_that_is_called_off(host: Host) -> None:
    async def script(channel: Channel) -> None:
        await channel.receive()
        await channel.send(Cancel(task="t1", reason="superseded by a newer revision"))

    report = await run_against(host.task(b"\0" * 32), host, script)
    assert (report.state, report.reason) == ("FAILED", "Cancelled")
    assert "superseded" in report.message


def answer(
    *blocks: tuple[int, int, int], payload: bytes, size: int | None = None
) -> tuple[AnyMessage, bytes]:
    announced = len(payload) if size is None else size
    return BlockResponseBin(task="t1", size=announced, blocks=blocks), payload


@pytest.mark.parametrize(
    "reply",
    [
        answer((0, 0, 1), payload=b"xx"),
        answer((0, 0, 2), payload=b"xx"),
        answer((0, 0, 1), payload=b"x", size=2),
        answer((0, 1, 1), payload=b"x"),
        answer((1, 0, 1), payload=b"x"),
        answer((-1, 0, 1), payload=b"x"),
        answer((0, 0, 1), (0, 0, 1), payload=b"xx"),
        answer((0, 0, -2), payload=b""),
        answer(payload=b""),
        (BlockResponseBin(task="t1", size=1, blocks=((0, 0, 1),)), None),
        (BlockResponseBin(task="t2", size=1, blocks=((0, 0, 1),)), b"x"),
    ],
)
async def test_answers_that_nobody_asked_for(host: Host, reply: tuple[AnyMessage, bytes | None]) -> None:
    report = await against(host, [a_file("a")], reply)
    assert (report.state, report.reason) == ("FAILED", "ProtocolError")
    assert read_tree(host.target) == {}


async def test_content_that_is_not_its_digests_never_lands(host: Host) -> None:
    wrong = answer((0, 0, 1), payload=b"y")
    report = await against(host, [a_file("a")], wrong, wrong)
    assert report.reason == "VerificationFailed"
    assert read_tree(host.target) == {}


async def test_a_block_that_was_damaged_once_is_asked_for_again(host: Host) -> None:
    report = await against(
        host, [a_file("a")], answer((0, 0, 1), payload=b"y"), answer((0, 0, 1), payload=b"x")
    )
    assert report.state == "SUCCESS"
    assert read_tree(host.target) == {"a": b"x"}


async def test_a_source_that_changed_meanwhile(host: Host) -> None:
    report = await against(host, [a_file("a")], answer((0, 0, -1), payload=b""))
    assert report.reason == "SourceChanged"


async def test_an_index_may_not_name_what_the_task_ignores_or_renders(host: Host, tmp_path: Path) -> None:
    entries = [a_file("a.log")]
    task = host.task(tree_digest(entries, ignore_permissions=False), ignore=("*.log",))
    assert (await run_against(task, host, sends(entries))).reason == "ProtocolError"


@pytest.mark.parametrize(
    "changes",
    [
        {"max_delete": 2.0},
        {"max_delete": -1.0},
        {"tree": b"short"},
        {"project": "a\0b"},
        {"project": "a\nb"},
        {"project": "x" * 10_000},
    ],
)
async def test_tasks_that_make_no_sense(host: Host, changes: dict[str, object]) -> None:
    task = msgspec.structs.replace(host.task(b"\0" * 32), **changes)

    async def script(channel: Channel) -> None:
        await channel.receive()

    assert (await run_against(task, host, script)).reason == "ProtocolError"


async def test_the_hosts_own_limits(host: Host, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": b"x" * 1000, "b": b"y"})
    for limits in ({"max_entries": 1}, {"max_file_size": 999}, {"max_total_size": 1000}):
        host.allow(**limits)
        assert (await synchronise(source, host)).state == "FAILED ProtocolError"
        host.allow(max_entries=10, max_file_size=10_000, max_total_size=10_000)
    assert not host.target.exists()
    assert (await synchronise(source, host)).state == "SUCCESS"


async def test_a_session_cut_after_any_message_leaves_whole_files(host: Host, tmp_path: Path) -> None:
    """The n-th message of the primary is its last, for each n: old or new content, and then a resume."""
    source = write_tree(tmp_path / "source", {"big": os.urandom(3_000_000), "d/small": b"1", "l": "big"})
    for number in range(1, 9):
        target = Host(tmp_path / f"host{number}")
        write_tree(target.target, {"big": b"old", "mine": b"mine"})

        def cut_after(primary: MemoryChannel, _agent: MemoryChannel, number: int = number) -> None:
            def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
                if len(primary.sent.messages) == number:
                    primary.cut()
                    raise TransferFailed("cut")
                return [(message, payload)]

            primary.alter = alter

        before = read_tree(target.target)
        after = read_tree(source) | {"mine": b"mine"}
        try:
            await synchronise(source, target, prepare=cut_after)
        except* TransferFailed:
            pass
        found = read_tree(target.target)
        found = {path: content for path, content in found.items() if not path.startswith(STAGING)}
        for path, content in found.items():
            assert content in (before.get(path, after.get(path)), after.get(path)), path
        outcome = await synchronise(source, target)
        assert outcome.state == "SUCCESS"
        assert read_tree(target.target) == after


async def test_a_primary_that_falls_silent(host: Host, autojump_clock: MockClock) -> None:
    async def script(channel: Channel) -> None:
        await channel.receive()
        await trio.sleep_forever()

    primary, agent = channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, primary)
        with pytest.raises(TransferFailed, match="sent nothing for 120 s"):
            await run_task(host.task(b"\0" * 32), agent, rules=host.rules, state_dir=host.state)
        nursery.cancel_scope.cancel()
    assert not host.target.exists()


@pytest.fixture
def wide(tmp_path: Path) -> Host:
    """A host whose root holds the agent's own files too, behind a symlink."""
    wide = Host(tmp_path / "wide", name="top")
    write_tree(wide.target, {"etc/agent.toml": b"roots = []", "var/tls/client.key": b"key"})
    (wide.base / "config").symlink_to("srv/top/etc")
    wide.allow(private=(str(wide.base / "config/agent.toml"), str(wide.target / "var")))
    return wide


@pytest.mark.parametrize("target", ["var", "var/tls", "var/new", "etc/agent.toml", "etc/agent.toml/x"])
async def test_no_target_is_where_the_agent_keeps_its_own(wide: Host, target: str) -> None:
    before = read_tree(wide.base)
    task = wide.task(b"\0" * 32, target_path=str(wide.target / target))
    report = await run_against(task, wide, sends([]))
    assert (report.state, report.reason) == ("FAILED", "PathRefused")
    assert read_tree(wide.base) == before


@pytest.mark.parametrize(
    "entries",
    [
        [directory_entry("etc", mode=0o755, mtime_ns=1), a_file("etc/agent.toml", b"roots = ['/']")],
        [a_file("etc")],
        [symlink_entry("etc", mtime_ns=1, link="/tmp")],
        [a_file("var")],
        [directory_entry("var", mode=0o777, mtime_ns=1), a_file("var/x")],
    ],
)
async def test_no_index_names_the_agents_own_files(wide: Host, entries: list[Entry]) -> None:
    before = read_tree(wide.target)
    task = wide.task(tree_digest(entries, ignore_permissions=False))
    report = await run_against(task, wide, sends(entries))
    assert (report.state, report.reason) == ("FAILED", "PathRefused")
    assert read_tree(wide.target) == before


@pytest.mark.parametrize("path", ["etc/agent.toml", "var", "var/tls/client.key"])
async def test_no_rendered_file_is_one_of_the_agents_own(wide: Host, path: str) -> None:
    before = read_tree(wide.target)
    task = wide.task(b"\0" * 32, rendered=(RenderedContent(path=path, content=b"mine"),))
    report = await run_against(task, wide, sends([]))
    assert (report.state, report.reason) == ("FAILED", "PathRefused")
    assert read_tree(wide.target) == before


async def test_deleting_what_is_foreign_spares_the_agents_own(wide: Host, tmp_path: Path) -> None:
    own = read_tree(wide.target)
    write_tree(wide.target, {"foreign": b"x", "var2/x": b"y"})
    source = write_tree(tmp_path / "source", {"a": b"1"})
    assert (await synchronise(source, wide, delete_foreign=True)).state == "SUCCESS"
    assert read_tree(wide.target) == own | {"a": b"1"}
    assert (await synchronise(source, wide, delete_foreign=True)).from_agent.messages == ["TaskReport"]
