"""Which releases stay on a host: a few, the current one always, and the way back to each that is kept."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import trio

from agent.versions import Releases, new_name, settle, surplus, switched
from agent.wire.messages import KeptVersion, TaskReport
from agent.work import run_work
from tests.agent.releasing import ONE, TWO, current, names, release, trees
from tests.agent.syncing import Host, read_tree
from tests.channelpair import channel_pair


async def go_back(host: Host, version: KeptVersion, **changes: Any) -> TaskReport:
    """A task that switches to a version which is there; nothing but the report may be said."""
    _, agent = channel_pair()
    task = host.task(version.tree, strategy="release", kept_only=True, **changes)
    with trio.fail_after(60):
        report = await run_work(task, agent, rules=host.rules, state_dir=host.state)
    assert agent.sent.messages == []
    return report


async def test_only_so_many_are_kept_and_only_what_is_ours_goes(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    sources = trees(tmp_path, *({"index": b"%d" % number, "d/x": b"x"} for number in range(6)))
    await release(sources[0], host, keep=2)
    (host.target / "releases" / names(host)[0] / "d/theirs").write_bytes(b"theirs")
    (host.target / "shared").mkdir()
    (host.target / "releases/by-hand").mkdir()
    for source in sources[1:]:
        outcome = await release(source, host, keep=2)
        assert outcome.state == "SUCCESS"
        assert len(outcome.report.kept) <= 2
        assert current(host) == read_tree(source)
    assert [name.partition("-")[0] for name in names(host)] == ["1", "5", "6", "by"]
    stayed = next(name for name in names(host) if name.startswith("1-"))
    assert read_tree(host.target / "releases" / stayed) == {"d": None, "d/theirs": b"theirs"}
    assert (host.target / "shared").is_dir()
    # Nobody knows it any more: it is told of, as it takes room.
    assert outcome.report.warnings == (
        f"{str(host.target)!r} holds releases that are in no record of this agent, and stay: {stayed}",
    )
    # With delete_foreign the directories of old versions go whole.
    (host.target / "releases" / outcome.report.kept[0].name / "cache").write_bytes(b"made by the program")
    outcome = await release(sources[0], host, keep=2, delete_foreign=True)
    assert len(outcome.report.warnings) == 1
    assert [name.partition("-")[0] for name in names(host)] == ["1", "6", "7", "by"]


async def test_releases_of_a_lost_record_are_told_of_and_never_removed(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    sources = trees(tmp_path, *({"index": b"%d" % number} for number in range(4)))
    for source in sources[:2]:
        await release(source, host)
    lost = names(host)
    shutil.rmtree(host.state)
    for source in sources:
        outcome = await release(source, host, keep=1)
        [warning] = outcome.report.warnings
        assert warning.endswith(f"are in no record of this agent, and stay: {', '.join(lost)}")
    assert names(host) == [*lost, outcome.report.current]
    assert current(host) == read_tree(sources[-1])


async def test_one_that_is_kept_is_switched_to_and_nothing_is_sent(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second = trees(tmp_path, ONE, TWO)
    host.allow(commands={"note": ("/bin/sh", "-c", "cat index >> $TRUEUP_TARGET/../ran")})
    await release(first, host, after=("note",), revision="v1")
    two = (await release(second, host, after=("note",), revision="v2")).report
    report = await go_back(host, two.kept[0], after=("note",))
    assert (report.state, report.current) == ("SUCCESS", two.kept[0].name)
    assert current(host) == read_tree(first)
    assert (host.base / "srv/ran").read_bytes() == b"onetwoone"
    assert {each.revision for each in report.kept} == {"v1", "v2"}
    # There already: nothing happens.
    assert (await go_back(host, two.kept[0], after=("note",))).state == "SUCCESS"
    assert (host.base / "srv/ran").read_bytes() == b"onetwoone"
    # Forward again: it is there, so nothing travels.
    outcome = await release(second, host, after=("note",), revision="v3")
    assert (outcome.state, outcome.from_agent.messages) == ("SUCCESS", ["TaskReport"])
    assert current(host) == read_tree(second)
    assert [each.revision for each in outcome.report.kept] == ["v1", "v3"]


async def test_no_way_back_to_one_that_is_gone_or_was_changed(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second = trees(tmp_path, ONE, TWO)
    await release(first, host)
    two = (await release(second, host)).report
    old = two.kept[0]
    (host.target / "releases" / old.name / "index").write_bytes(b"changed")
    report = await go_back(host, old)
    assert (report.state, report.reason, report.current) == ("FAILED", "VersionChanged", two.current)
    assert current(host) == read_tree(second)
    report = await go_back(host, KeptVersion(name=old.name, tree=b"x" * 32))
    assert (report.state, report.reason) == ("FAILED", "VersionGone")
    # A task that may ask for content mends it before the switch.
    assert (await release(first, host)).state == "SUCCESS"
    assert current(host) == read_tree(first)


# --- decisions -----------------------------------------------------------------------------------


def version(number: int) -> KeptVersion:
    return KeptVersion(name=f"{number}-{'0' * 12}", tree=bytes([number]) * 32)


def record(*numbers: int, **changes: Any) -> Releases:
    base = Releases(
        project="p", target="/srv/app", root=(1, 2, 3), kept=tuple(version(each) for each in numbers)
    )
    return msgspec.structs.replace(base, **changes)


def test_the_disk_decides_what_a_killed_task_left() -> None:
    one, two, three = version(1), version(2), version(3)
    both = record(1, 2, current=two.name)
    assert settle(both, {one.name, two.name}, two.name) == both
    # Gone from the disk, or never listed.
    assert settle(both, {two.name, "foreign"}, two.name).kept == (two,)
    assert settle(both, {one.name}, two.name).current == ""
    assert settle(both, {one.name, two.name}, "foreign").current == ""
    # Named and not switched to; switched to and not noted; not named.
    begun = msgspec.structs.replace(both, next=three)
    there = {one.name, two.name, three.name}
    assert settle(begun, there, two.name) == record(1, 3, 2, current=two.name)
    assert settle(begun, there, three.name) == record(1, 2, 3, current=three.name)
    assert settle(begun, {one.name, two.name}, two.name) == both
    # Back to an older one, by a task that was killed.
    assert settle(both, {one.name, two.name}, one.name) == record(2, 1, current=one.name)


def test_the_current_one_is_never_surplus() -> None:
    held = switched(record(1, 2, 3), version(1))
    assert [each.name for each in held.kept] == [version(n).name for n in (2, 3, 1)]
    assert surplus(held, 3) == []
    assert surplus(held, 2) == [version(2)]
    assert surplus(held, 1) == [version(2), version(3)]


def test_numbers_only_go_up() -> None:
    assert new_name(record(number=7), ["9-" + "a" * 12, "12", "by-hand"], b"\xab" * 32) == (
        10,
        "10-abababababab",
    )
    assert new_name(record(number=7), [], b"\xab" * 32)[0] == 8
