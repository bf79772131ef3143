"""Where all is as recorded, a task looks at what differs alone, and does the same as after a close look."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

from agent.checked import read_checked
from agent.concern import Concern
from agent.index import STAGING, tree_digest
from agent.ledger import Ledger
from agent.look import View
from agent.manifest import Placed, forget, ledger_path, load, look_path, manifest_path
from agent.recall import remember_changes
from agent.recent import RecentLooks
from agent.record import Recorded
from agent.scan import Found
from agent.wire.channel import Channel
from agent.wire.messages import RUNS, RenderedContent, SyncStart
from reconciler.sync.serving import TreeSource, serve_task
from tests.agent.syncing import (
    AFTER,
    BEFORE,
    Host,
    Outcome,
    Tree,
    observe,
    read_tree,
    run_against,
    synchronise,
    write_tree,
)
from tests.agent.test_any_trees import times
from tests.agent.test_ledger import ledger, many

TREE: Tree = {f"part{part}/file{file}": b"%d %d" % (part, file) for part in range(4) for file in range(3)}


@dataclass
class _Scans:
    """How many directories this process has scanned, apart from staging, while it `counts`."""

    count: int = 0
    counts: bool = field(default=False)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.counts and event == "os.scandir" and isinstance(arguments[0], int):
            self.count += Path(f"/proc/self/fd/{arguments[0]}").readlink().name != STAGING


_scans = _Scans()
sys.addaudithook(_scans.hear)


@contextmanager
def counted() -> Iterator[_Scans]:
    _scans.count, _scans.counts = 0, True
    try:
        yield _scans
    finally:
        _scans.counts = False


async def scans_of(source: Path, host: Host, **changes: Any) -> tuple[int, Outcome]:
    """How many directories of the target a task looks into closely."""
    tree = await TreeSource.build(source, ignore=changes.get("ignore", ()))
    with counted() as scans:
        outcome = await synchronise(tree, host, **changes)
    return scans.count, outcome


async def observe_to_the_end(host: Host) -> None:
    """Looks until a glance is enough, as the clock has moved on since the last change."""
    with trio.fail_after(60):
        while True:
            with counted() as scans:
                await observe(host)
            if not scans.count:
                return


def record_of(host: Host) -> Path:
    return manifest_path(host.state, str(host.target))


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "source", TREE), host)
    return host


async def test_what_is_the_same_is_not_looked_into(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "part1/file1").write_bytes(b"another")
    (source / "part2/file0").unlink()
    (source / "part3/new").mkdir()
    (source / "part3/new/file").write_bytes(b"new")
    scans, outcome = await scans_of(source, host)
    assert (outcome.state, scans) == ("SUCCESS", 0)
    assert (outcome.report.files_written, outcome.report.files_deleted) == (2, 1)
    assert (outcome.report.files_read, outcome.report.files_known) == (0, 12)
    assert read_tree(host.target) == read_tree(source)
    assert times(host.target, read_tree(source)) == times(source, read_tree(source))
    again, outcome = await scans_of(source, host)
    assert (outcome.from_agent.messages, again) == (["TaskReport"], 0)  # what it left is known at a glance


async def test_one_change_after_the_other_is_known_at_a_glance(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (host.target / "foreign").write_bytes(b"not ours")
    await observe(host)
    for number in range(5):
        (source / f"part{number % 2}/file{number}").write_bytes(b"round %d" % number)
        (source / f"part0/link{number}").symlink_to("file0")
        (source / f"made{number}").mkdir()
        (source / f"part0/link{number - 2}").unlink(missing_ok=True)
        scans, outcome = await scans_of(source, host)
        assert (outcome.state, scans, outcome.report.foreign) == ("SUCCESS", 0, 1)
        assert read_tree(host.target) == {**read_tree(source), "foreign": b"not ours"}
    (host.target / "foreign").unlink()
    assert (await observe(host)).foreign == 0


@pytest.mark.parametrize("features", [(), (RUNS,)], ids=["whole index", "runs"])
async def test_it_does_not_matter_how_the_index_comes(
    host: Host, tmp_path: Path, features: tuple[str, ...]
) -> None:
    (tmp_path / "source/part1/file1").write_bytes(b"another")
    scans, outcome = await scans_of(tmp_path / "source", host, features=features)
    assert (outcome.state, scans, outcome.report.files_written) == ("SUCCESS", 0, 1)


async def test_a_block_comes_from_a_file_that_the_task_has_nothing_to_do_with(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / "source/new").write_bytes(TREE["part3/file2"])  # type: ignore[arg-type]
    scans, outcome = await scans_of(tmp_path / "source", host)
    assert (scans, outcome.report.bytes_received, outcome.report.bytes_reused) == (0, 0, 3)


async def test_a_deletion_is_judged_by_all_that_is_recorded(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for file in range(3):
        (source / f"part0/file{file}").unlink()
    scans, outcome = await scans_of(source, host, max_delete=0.1)
    assert (outcome.state, scans) == ("FAILED TooManyDeletions", 0)
    assert "3 of 16 placed entries" in outcome.report.message
    assert read_tree(host.target) == TREE | {f"part{part}": None for part in range(4)}
    scans, outcome = await scans_of(source, host, max_delete=0.2)
    assert (outcome.state, scans) == ("SUCCESS", 0)


@pytest.mark.parametrize("change", ["a directory", "a link", "a link alone"])
async def test_a_time_that_no_look_minds_is_put_right_with_a_change_elsewhere(
    host: Host, tmp_path: Path, change: str
) -> None:
    source = tmp_path / "source"
    (source / "part0/link").symlink_to("file0")
    await synchronise(source, host)
    if change == "a directory":
        (host.target / "part0/theirs").write_bytes(b"for a moment")
        (host.target / "part0/theirs").unlink()
    elif change == "a link alone":
        os.utime(host.target / "part0/link", ns=(1, 1), follow_symlinks=False)
    else:
        (host.target / "part0/link").unlink()
        (host.target / "part0/link").symlink_to("file0")
    await observe_to_the_end(host)
    (source / "part1/file1").write_bytes(b"another")
    scans, outcome = await scans_of(source, host)
    assert (outcome.state, scans) == ("SUCCESS", 0)
    there = read_tree(host.target)
    assert there == read_tree(source)
    assert times(host.target, there) == times(source, there)
    *_, late, _ = msgspec.msgpack.decode(read_checked(ledger_path(record_of(host))) or b"")
    assert late == []


async def test_what_overlay_leaves_is_counted_as_foreign(host: Host, tmp_path: Path) -> None:
    (tmp_path / "source/part0/file0").unlink()
    scans, outcome = await scans_of(tmp_path / "source", host, strategy="overlay")
    assert (outcome.state, scans, outcome.report.foreign) == ("SUCCESS", 0, 1)
    assert (host.target / "part0/file0").read_bytes() == b"0 0"
    record_of(host).with_suffix(".look").unlink(missing_ok=True)
    assert (await observe(host)).foreign == 1


@pytest.mark.parametrize("change", ["gone", "a directory from a file", "a file from a directory"])
async def test_what_was_left_is_known_at_a_glance_whatever_came_or_went(
    host: Host, tmp_path: Path, change: str
) -> None:
    source = tmp_path / "source"
    if change == "a file from a directory":
        shutil.rmtree(source / "part0")
        (source / "part0").write_bytes(b"a file")
    else:
        (source / "part0/file0").unlink()
    if change == "a directory from a file":
        (source / "part0/file0/deep").mkdir(parents=True)
    scans, outcome = await scans_of(source, host)
    assert (outcome.state, scans, read_tree(host.target)) == ("SUCCESS", 0, read_tree(source))
    again, outcome = await scans_of(source, host)
    assert (outcome.from_agent.messages, again) == (["TaskReport"], 0)


# --- what is left to a close look ------------------------------------------------------------------


async def test_an_edit_elsewhere_is_found(host: Host, tmp_path: Path) -> None:
    (tmp_path / "source/part1/file1").write_bytes(b"another")
    (host.target / "part0/file0").write_bytes(b"edited")
    scans, outcome = await scans_of(tmp_path / "source", host)
    assert outcome.state == "SUCCESS"
    assert scans > 0
    assert read_tree(host.target) == read_tree(tmp_path / "source")


async def test_something_foreign_where_something_new_is_to_be_is_an_edit(host: Host, tmp_path: Path) -> None:
    (tmp_path / "source/part1/new").write_bytes(b"ours")
    (host.target / "part1/new").write_bytes(b"theirs")
    await observe(host)
    scans, outcome = await scans_of(tmp_path / "source", host, on_local_edit="backup")
    assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", 1)
    assert scans > 0
    backups = [path.read_bytes() for path in (host.target / "part1").iterdir() if "backup" in path.name]
    assert backups == [b"theirs"]


@pytest.mark.parametrize("ignore", [(), ("*.log",)], ids=["foreign", "ignored"])
async def test_a_directory_that_goes_keeps_what_others_have_in_it(
    host: Host, tmp_path: Path, ignore: tuple[str, ...]
) -> None:
    source = tmp_path / "source"
    await synchronise(source, host, ignore=ignore)
    (host.target / "part0/x.log").write_bytes(b"theirs")
    await observe(host, ignore=ignore)
    for path in (source / "part0").iterdir():
        path.unlink()
    (source / "part0").rmdir()
    scans, outcome = await scans_of(source, host, ignore=ignore)
    assert (outcome.state, scans > 0) == ("SUCCESS", True)
    assert {path.name for path in (host.target / "part0").iterdir()} == {"x.log"}


async def test_a_directory_that_overlay_leaves_is_looked_into_no_more(host: Host, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "source/part0")
    _, outcome = await scans_of(tmp_path / "source", host, strategy="overlay")
    assert (outcome.state, (host.target / "part0/file0").exists()) == ("SUCCESS", True)
    at_a_glance = await observe(host)
    record_of(host).with_suffix(".look").unlink(missing_ok=True)
    assert await observe(host) == at_a_glance


async def test_rendered_files_that_differ_are_placed_with_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "source/part1/file1").write_bytes(b"another")
    for content in (b"one", b"two"):
        rendered = [RenderedContent(path="part0/secret", content=content)]
        outcome = await synchronise(tmp_path / "source", host, rendered=rendered)
        assert outcome.state == "SUCCESS"
        assert (host.target / "part0/secret").read_bytes() == content
    assert (host.target / "part1/file1").read_bytes() == b"another"


async def test_a_tree_without_entries_is_refused_as_ever(host: Host, tmp_path: Path) -> None:
    outcome = await synchronise(write_tree(tmp_path / "empty", {}), host)
    assert outcome.state == "FAILED EmptyTree"
    assert read_tree(host.target) == TREE | {f"part{part}": None for part in range(4)}


def _edit(target: Path) -> None:
    (target / "part1/file1").write_bytes(b"since")


def _make(target: Path) -> None:
    (target / "part1/new").write_bytes(b"since")


def _make_the_same(target: Path) -> None:
    (target / "part1/new").write_bytes(b"new")


def _link_elsewhere(target: Path) -> None:
    (target / "part1/link").unlink()
    (target / "part1/link").symlink_to("since")


def _make_a_file_of_a_directory(target: Path) -> None:
    (target / "part1/goes").rmdir()
    (target / "part1/goes").write_bytes(b"since")
    (target / "part1/goes").chmod(0o755)


@pytest.mark.parametrize(
    ("change", "saved"),
    [
        (_edit, [b"since"]),
        (_make, [b"since"]),
        (_make_the_same, []),
        (_link_elsewhere, ["since"]),
        (_make_a_file_of_a_directory, [b"since"]),
    ],
)
async def test_what_happens_between_glance_and_index_is_found(
    host: Host, tmp_path: Path, change: Callable[[Path], None], saved: list[object]
) -> None:
    """Where the task has to do with it; elsewhere it is the next look's."""
    source = tmp_path / "source"
    (source / "part1/link").symlink_to("before")
    (source / "part1/goes").mkdir()
    await synchronise(source, host)
    await observe_to_the_end(host)
    (source / "part1/file1").write_bytes(b"another")
    (source / "part1/new").write_bytes(b"new")
    (source / "part1/link").unlink()
    (source / "part1/link").symlink_to("after")
    (source / "part1/goes").rmdir()
    tree = await TreeSource.build(source)

    async def change_and_serve(primary: Channel) -> None:
        message, _ = await primary.receive()
        assert isinstance(message, SyncStart)
        change(host.target)
        await serve_task(_Again(primary, message), tree)

    task = host.task(tree.tree, on_local_edit="backup", features=(RUNS,))
    report = await run_against(task, host, change_and_serve)
    assert (report.state, report.local_edits) == ("SUCCESS", len(saved))
    found = read_tree(host.target)
    assert [each for name, each in found.items() if "backup" in name] == saved
    assert {name: each for name, each in found.items() if "backup" not in name} == read_tree(source)


def test_what_stands_is_noted_whatever_was_planned() -> None:
    """And it has the digest of the task only where it is what was planned."""
    whole = ledger(many(*range(300)))
    index = many(7, 8, content=b"new")
    concern = Concern(View(), index, {entry.path: whole.ordinal(entry.path) for entry in index}, whole)
    recorded = [Placed(entry) for entry in index]
    placed, tree = concern.established(recorded, index, b"planned")
    assert (tree, [placed.at(entry.path) for entry in index]) == (b"planned", recorded)
    placed, tree = concern.established(recorded[:1], index, b"planned")
    assert (len(placed), placed.at("0007"), placed.at("0008")) == (299, recorded[0], None)
    assert tree == tree_digest((each.entry for each in placed), ignore_permissions=False)


FOUND = Found("file", 0o644, 3, 1, 2, 3, 4)


@pytest.mark.parametrize("what", ["nothing", "what was written", "what was taken away"])
async def test_nothing_is_kept_of_a_task_in_which_somebody_changed(host: Host, what: str) -> None:
    await observe_to_the_end(host)
    record, looks = record_of(host), RecentLooks()
    await observe(host, looks=looks)
    manifest, recalled = load(record), looks.take(record)
    assert manifest is not None
    assert recalled is not None
    manifest = replace(manifest, placed=Ledger.of(manifest.placed, modes=True, times=True))
    forget(record)
    recorded = Recorded(time.time_ns(), as_written=what != "what was written")
    gone = dict.fromkeys(["part0/file0"] if what == "what was taken away" else [], FOUND)
    remember_changes(record, manifest, recalled, 0, recorded, gone, View())
    assert look_path(record).exists() is ledger_path(record).exists() is (what == "nothing")


class _Again:
    """A channel on which one message comes that was taken already."""

    def __init__(self, channel: Channel, message: SyncStart) -> None:
        self._channel = channel
        self._message: SyncStart | None = message
        self.send = channel.send

    async def receive(self) -> Any:
        if self._message is not None:
            message, self._message = self._message, None
            return message, None
        return await self._channel.receive()


async def test_everything_that_can_happen_to_a_name_happens(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "before", BEFORE), host)
    source = write_tree(tmp_path / "after", AFTER)
    scans, outcome = await scans_of(source, host)
    assert (outcome.state, scans) == ("SUCCESS", 0)
    assert read_tree(host.target) == read_tree(source)
    again, outcome = await scans_of(source, host)
    assert (outcome.from_agent.messages, again) == (["TaskReport"], 0)
