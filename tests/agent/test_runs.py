"""An index of which the agent has most: what is sent, that the whole comes out, and what a peer can do."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import RemoteProtocolError
from agent.fetch import fetch_index
from agent.ignore import Ignore
from agent.index import ancestors, directory_entry, file_entry, symlink_entry, tree_digest
from agent.manifest import load, manifest_path, save
from agent.rules import AgentRules
from agent.runs import LONGEST, MAX_RUNS, SHORTEST, Known, check_known, compare_runs, length_for, runs_of
from agent.wire.channel import Channel
from agent.wire.messages import (
    OWNERS,
    RUNS,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    IndexOwners,
    KnownRuns,
    SyncStart,
)
from reconciler.sync.serving import TreeSource
from reconciler.sync.telling import send_index
from tests.agent.syncing import Host, read_tree, run_against, synchronise, write_tree
from tests.channelpair import channel_pair

NAMES = st.sampled_from([*"abcdefgh", "é", "long-name.txt"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
MANY = 4000


def file(path: str, content: bytes = b"x", mtime_ns: int = 1) -> Entry:
    return file_entry(path, mode=0o644, size=len(content), mtime_ns=mtime_ns, blocks=content.ljust(32)[:32])


@st.composite
def indexes(draw: st.DrawFn) -> list[Entry]:
    """A well-formed index: directories above everything, no path twice."""
    entries: dict[str, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=40)):
        above = ancestors(path)
        if path in entries or any(each in entries and entries[each].kind != "directory" for each in above):
            continue
        for each in above:
            entries.setdefault(each, directory_entry(each, mode=0o755, mtime_ns=draw(st.integers(0, 2))))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            entries[path] = directory_entry(path, mode=draw(st.sampled_from([0o755, 0o700])), mtime_ns=0)
        elif kind == 1:
            entries[path] = symlink_entry(path, mtime_ns=0, link=draw(st.sampled_from(["a", "b"])))
        else:
            entries[path] = file(path, draw(st.sampled_from([b"1", b"2"])), draw(st.integers(0, 2)))
    return sorted(entries.values(), key=lambda entry: entry.path)


def source_of(entries: list[Entry], *, ignore_permissions: bool = False) -> TreeSource:
    return TreeSource(
        directory=Path("/nowhere"),
        entries=tuple(entries),
        tree=tree_digest(entries, ignore_permissions=ignore_permissions),
        files=0,
        bytes=sum(entry.size for entry in entries),
        warnings=(),
        found={},
        mtime_ns=7,
    )


async def fetched(
    known: list[Entry], wanted: list[Entry], host: Host, **changes: object
) -> tuple[tuple[Entry, ...], list[str]]:
    """The index that an agent ends up with, and the messages of the primary."""
    source = source_of(wanted, ignore_permissions=bool(changes.get("ignore_permissions")))
    task = host.task(source.tree, **{"features": (RUNS,), **changes})
    primary, agent = channel_pair()
    taken: list[tuple[Entry, ...]] = []

    async def serve() -> None:
        while True:
            message, _ = await primary.receive()
            assert isinstance(message, SyncStart)
            await send_index(primary, source, message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        index = await fetch_index(agent, task, AgentRules(roots=()), Ignore(()), reserved=(), known=known)
        assert index.mtime_ns == 7
        taken.append(index.entries)
        nursery.cancel_scope.cancel()
    return taken[0], primary.sent.messages


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(known=indexes(), wanted=indexes())
async def test_whatever_is_known_the_whole_index_comes_out(
    tmp_path: Path, known: list[Entry], wanted: list[Entry]
) -> None:
    index, sent = await fetched(known, wanted, Host(tmp_path))
    assert list(index) == wanted
    assert sent.count("IndexBegin") == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=indexes())
async def test_an_agent_that_is_wrong_about_what_it_knows_asks_for_all(
    tmp_path: Path, wanted: list[Entry]
) -> None:
    """Its digests are of entries that it no longer has: what it makes of them is not of the tree."""
    real = Known.taken

    def wrong(self: Known, same: bytes) -> list[Entry]:
        taken = real(self, same)
        return [file(entry.path, b"##") if entry.kind == "file" else entry for entry in taken]

    Known.taken = wrong  # type: ignore[method-assign]
    try:
        index, sent = await fetched(wanted, wanted, Host(tmp_path))
    finally:
        Known.taken = real  # type: ignore[method-assign]
    assert list(index) == wanted
    assert sent.count("IndexBegin") == 1 + any(entry.kind == "file" for entry in wanted)


@given(indexes(), indexes(), st.sampled_from([16, 32, 64]), st.booleans())
def test_runs_tell_exactly_what_is_missing(
    known: list[Entry], wanted: list[Entry], length: int, modes: bool
) -> None:
    theirs = runs_of(known, length, modes=modes)
    told = KnownRuns(length=length, modes=modes, digests=b"".join(theirs.digests))
    check_known(told)
    same, rest = compare_runs(told, runs_of(wanted, length, modes=modes))
    mine = Known(known, modes)
    if length == SHORTEST:
        taken = mine.taken(same)
        whole = sorted([*taken, *rest], key=lambda entry: entry.path)
        if not modes:
            whole, wanted = ([msgspec.structs.replace(e, mode=0) for e in each] for each in (whole, wanted))
        assert whole == wanted


def many(changed: Callable[[int], bool] = lambda number: False) -> list[Entry]:
    return [file(f"{number:06}.dat", b"new" if changed(number) else b"old") for number in range(MANY)]


async def test_of_one_change_in_a_large_directory_its_neighbours_are_sent(tmp_path: Path) -> None:
    wanted = many(lambda number: number == 1234)
    told = Known(many()).told
    assert len(told.digests) < 16 * MANY // 8
    _, rest = compare_runs(told, runs_of(wanted, told.length))
    assert 0 < len(rest) < 200
    assert file("001234.dat", b"new") in rest
    index, _ = await fetched(many(), wanted, Host(tmp_path))
    assert list(index) == wanted


async def test_permissions_that_are_ignored_do_not_count(tmp_path: Path) -> None:
    known = [msgspec.structs.replace(entry, mode=0o600) for entry in many()]
    index, sent = await fetched(known, many(), Host(tmp_path), ignore_permissions=True)
    assert [entry.path for entry in index] == [entry.path for entry in many()]
    assert sent == ["IndexBegin", "IndexEnd"]


async def test_a_primary_that_offers_nothing_is_told_nothing(tmp_path: Path) -> None:
    _, sent = await fetched(many(), many(), Host(tmp_path), features=())
    assert sent.count("IndexFile") > 0


@pytest.mark.parametrize("entries", [0, 1, 10**5, 10**6, 5 * 10**6, 10**9])
def test_what_is_told_is_bounded(entries: int) -> None:
    length = length_for(entries)
    assert SHORTEST <= length <= LONGEST
    assert length == LONGEST or entries / length <= MAX_RUNS


@pytest.mark.parametrize(
    "known",
    [
        KnownRuns(length=0, digests=b""),
        KnownRuns(length=1, digests=b""),
        KnownRuns(length=24, digests=b""),
        KnownRuns(length=-16, digests=b""),
        KnownRuns(length=2 * LONGEST, digests=b""),
        KnownRuns(length=16, digests=b"x" * 15),
        KnownRuns(length=16, digests=b"x" * 16 * (MAX_RUNS + 1)),
    ],
    ids=["no length", "1", "24", "negative", "too long", "half a digest", "too many"],
)
def test_runs_that_no_agent_tells_of_are_refused(known: KnownRuns) -> None:
    with pytest.raises(RemoteProtocolError):
        check_known(known)


# --- whole tasks -----------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = {f"{number % 7}/{number:04}": f"{number}".encode() for number in range(800)}
    return write_tree(tmp_path / "source", tree)


async def test_a_small_change_needs_a_small_index(source: Path, tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first = await synchronise(source, host)
    (source / "3/0003").write_bytes(b"changed")
    (source / "new").mkdir()
    (source / "4/0004").unlink()
    second = await synchronise(source, host)
    assert second.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)
    assert second.from_primary.control_bytes < first.from_primary.control_bytes / 4
    assert second.report.files_written == 1


async def test_a_time_that_changed_alone_arrives_with_the_next_change(source: Path, tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await synchronise(source, host)
    os.utime(source / "5/0005", ns=(10**18, 10**18))
    (source / "3/0003").write_bytes(b"changed")
    await synchronise(source, host)
    assert (host.target / "5/0005").stat().st_mtime_ns == 10**18


async def test_a_record_that_is_wrong_costs_an_index_and_no_more(source: Path, tmp_path: Path) -> None:
    """Entries of the manifest are right by their digests alone if the whole tree comes out."""
    host = Host(tmp_path / "host")
    await synchronise(source, host)
    record = manifest_path(host.state, str(host.target))
    manifest = load(record)
    assert manifest is not None
    twice = (*manifest.placed, *islice(manifest.placed, 50))
    save(record, msgspec.structs.replace(manifest, placed=twice), durable=False)
    (source / "3/0003").write_bytes(b"changed")
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def _with_answer(host: Host, source: Path, same: bytes, entries: tuple[Entry, ...], count: int) -> str:
    """How a task ends whose primary answers what is known like this, and then again the same."""
    tree = (await TreeSource.build(source)).tree
    task = host.task(b"\1" * 32, features=(RUNS,))

    async def script(primary: Channel) -> None:
        while True:
            message, _ = await primary.receive()
            if not isinstance(message, SyncStart):
                return
            told = same if message.known is not None else b""
            await primary.send(IndexBegin(task="t1", entries=count, bytes=10**6, same=told))
            if entries:
                await primary.send(IndexFile(task="t1", entries=entries))
            await primary.send(IndexEnd(task="t1", tree=task.tree))

    assert tree != task.tree
    report = await run_against(task, host, script)
    return f"{report.state} {report.reason}"


@pytest.mark.parametrize(
    ("same", "entries", "count"),
    [
        (b"\xff" * 100, (), 1000),
        (b"\xff", (), 0),
        (b"\xff", (file("3/0003"),), 1000),
        (b"", (file("3/0003"),), 1),
        (b"\xff" * 2, (), 10**9),
    ],
    ids=["more runs than told", "more entries than announced", "an entry twice", "no directory", "too many"],
)
async def test_a_hostile_primary_changes_nothing(
    source: Path, tmp_path: Path, same: bytes, entries: tuple[Entry, ...], count: int
) -> None:
    host = Host(tmp_path / "host")
    await synchronise(source, host)
    before = read_tree(host.target)
    ended = await _with_answer(host, source, same, entries, count)
    assert ended.startswith("FAILED")
    assert read_tree(host.target) == before


async def test_a_tree_that_is_too_large_is_refused_in_so_many_words(tmp_path: Path) -> None:
    """Also where most of it is known, and where it is told whose the entries are."""
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"1", "b": b"2"})
    assert (await synchronise(source, host, owners=True)).state == "SUCCESS"
    host.allow(max_entries=2)
    write_tree(source, {"c": b"3"})
    outcome = await synchronise(source, host, owners=True)
    assert "IndexOwners" in outcome.from_primary.messages
    assert outcome.state == "FAILED ProtocolError"
    assert outcome.report.message.startswith("the tree has 3 entries and this host allows 2")
    assert "raise max_entries in agent.toml" in outcome.report.message


async def test_owners_of_a_tree_that_is_too_large_come_to_an_end(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"1"})
    assert (await synchronise(source, host, owners=True)).state == "SUCCESS"
    host.allow(max_entries=1)
    task = host.task(b"o" * 32, owners=b"o" * 32, features=(RUNS, OWNERS))

    async def script(channel: Channel) -> None:
        await channel.receive()
        await channel.send(IndexBegin(task=task.id, entries=2, bytes=0))
        while True:
            await channel.send(IndexOwners(task=task.id, names=(("", ""),), runs=((1, 0),)))

    report = await run_against(task, host, script)
    assert report.reason == "ProtocolError"
    assert report.message.startswith("the tree has 2 entries and this host allows 1")
