"""Owner and group by name: what a host allows is placed and healed, and nobody else gets anything."""

import grp
import os
import pwd
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import accounts, libc
from agent.compare import Remembered, compare
from agent.features import owners_of
from agent.libc import Account
from agent.manifest import load, manifest_path
from agent.owners import UNCHANGED, Owners
from agent.ownership import gather, owners_digest
from agent.scan import found_from
from agent.wire.messages import OWNERS, AnyMessage, TaskReport
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import Host, Tree, modes, observe, read_tree, synchronise, write_tree
from tests.agent.test_any_trees import trees
from tests.agent.test_itemise import deeds, itemise
from tests.channelpair import MemoryChannel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

TREE: Tree = {
    "bin": None,
    "data": None,
    "bin/run": b"#!/bin/sh\n",
    "data/a": b"a" * 300,
    "data/b": b"b",
    "empty": None,
    "link": "data/a",
}
ROOT = (0, 0)
NAMES = ("daemon", "nobody", "nogroup")


@cache
def daemon() -> tuple[int, int]:
    return pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid


@cache
def nobody() -> tuple[int, int]:
    return pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid


@pytest.fixture(autouse=True, scope="module")
def _users() -> None:
    try:
        daemon(), nobody()
    except KeyError as error:
        pytest.skip(f"this system lacks a user or group of Debian: {error.args[0]}")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    host.allow(owners=NAMES)
    return host


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "source", TREE)
    (root / "bin/run").chmod(0o751)
    give(root, {"bin": daemon(), "bin/run": (daemon()[0], nobody()[1]), "data/a": nobody(), "link": daemon()})
    return root


def give(root: Path, owners: Mapping[str, tuple[int, int]]) -> None:
    for path, (uid, gid) in owners.items():
        os.chown(root / path, uid, gid, follow_symlinks=False)


def owners(root: Path) -> dict[str, tuple[int, int]]:
    found = {str(path.relative_to(root)): path.lstat() for path in sorted(root.rglob("*"))}
    return {path: (status.st_uid, status.st_gid) for path, status in found.items()}


def is_silent(messages: list[str]) -> bool:
    return messages == ["TaskReport"]


async def look_closely(host: Host) -> TaskReport:
    for look in (host.state / "targets").glob("*.look"):
        look.unlink()
    return await observe(host)


async def drifted(host: Host) -> int | None:
    record = manifest_path(host.state, str(host.target))
    found = await compare(record, rules=host.rules, state_dir=host.state, memory=Remembered())
    return found.count if found is not None else None


def named(source: TreeSource, owner: str, group: str) -> TreeSource:
    """As if all of it belonged to these."""
    owned = gather([entry.path for entry in source.entries], {e.path: (owner, group) for e in source.entries})
    return replace(source, owned=owned, owners=owners_digest(owned))


async def test_owners_arrive_with_their_modes_and_stay_silent(source: Path, host: Host) -> None:
    outcome = await synchronise(source, host, owners=True)
    assert (outcome.state, outcome.report.warnings) == ("SUCCESS", ())
    assert owners(host.target) == owners(source)
    assert owners(host.target)["link"] == daemon()
    assert modes(host.target) == modes(source)
    assert read_tree(host.target) == TREE
    assert "IndexOwners" in outcome.from_primary.messages
    for _ in range(3):  # by looking closely, which is remembered, and at a glance
        again = await synchronise(source, host, owners=True)
        assert is_silent(again.from_agent.messages)
        assert again.report.owners_equal
    assert await drifted(host) == 0


async def test_a_target_that_was_placed_without_them_lacks_them(source: Path, host: Host) -> None:
    """As an agent does that knew nothing of owners then; a look is told now whose all is to be."""
    tree = await TreeSource.build(source, owners=True)
    await synchronise(await TreeSource.build(source), host)
    asked: dict[str, Any] = {"features": (OWNERS,), "owners": tree.owners}
    for _ in range(2):  # by looking closely, and at a glance
        seen = await observe(host, **asked)
        assert (seen.observed, seen.owners_compared, seen.owners_equal) == (tree.tree, True, False)
    unasked = await observe(host)
    assert (unasked.owners_compared, unasked.owners_equal) == (False, True)
    outcome = await synchronise(tree, host)
    assert (outcome.state, outcome.report.bytes_received) == ("SUCCESS", 0)
    assert owners(host.target) == owners(source)
    for _ in range(2):
        seen = await observe(host, **asked)
        assert (seen.observed, seen.owners_compared, seen.owners_equal) == (tree.tree, True, True)


async def test_where_they_do_not_count_nothing_is_said_of_them(source: Path, host: Host) -> None:
    outcome = await synchronise(source, host)
    assert set(owners(host.target).values()) == {ROOT}
    assert "IndexOwners" not in outcome.from_primary.messages
    manifest = load(manifest_path(host.state, str(host.target)))
    assert manifest is not None
    assert (manifest.owners, manifest.owned) == (b"", ())
    one = await TreeSource.build(source)
    other = await TreeSource.build(source, owners=True)
    assert (one.tree, one.entries) == (other.tree, other.entries)
    assert one.digest == one.tree.hex() != other.digest


@pytest.mark.parametrize("path", ["bin", "bin/run", "link", "data/b"])
async def test_another_owner_is_drift_and_healed_without_an_index(
    source: Path, host: Host, path: str
) -> None:
    await synchronise(source, host, owners=True)
    before = (host.target / path).lstat()
    give(host.target, {path: (4, 4)})
    assert await drifted(host) == 1
    seen = await look_closely(host)
    assert not seen.owners_equal
    assert seen.observed == (await TreeSource.build(source)).tree
    outcome = await synchronise(source, host, owners=True)
    assert outcome.state == "SUCCESS"
    assert is_silent(outcome.from_agent.messages)  # no index was asked for
    assert outcome.report.bytes_received == 0
    # Nothing was told of data/b's owner that this host does not know: root is the agent's user.
    assert owners(host.target) == owners(source)
    after = (host.target / path).lstat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    if path != "link":
        assert after.st_ino == before.st_ino
    assert is_silent((await synchronise(source, host, owners=True)).from_agent.messages)
    assert await drifted(host) == 0


async def test_a_chown_takes_away_setuid_and_leaves_the_mode(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    run = host.target / "bin/run"
    os.chown(run, 4, 4)
    run.chmod(0o6751)
    assert (await synchronise(source, host, owners=True)).state == "SUCCESS"
    assert modes(host.target)["bin/run"] == 0o751
    assert owners(host.target)["bin/run"] == (daemon()[0], nobody()[1])


async def test_other_owners_at_the_source_travel_without_contents(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    inodes = {path: (host.target / path).stat().st_ino for path in ("data/a", "data/b")}
    give(source, {"data/a": daemon(), "data/b": nobody(), "empty": nobody(), "link": nobody()})
    outcome = await synchronise(source, host, owners=True)
    assert outcome.state == "SUCCESS"
    assert outcome.report.bytes_received == 0
    assert "BlockRequest" not in outcome.from_agent.messages
    assert owners(host.target) == owners(source)
    assert inodes == {path: (host.target / path).stat().st_ino for path in inodes}
    assert is_silent((await synchronise(source, host, owners=True)).from_agent.messages)


async def test_names_that_a_host_does_not_allow_are_not_used(source: Path, host: Host) -> None:
    host.allow(owners=("nogroup",))
    outcome = await synchronise(source, host, owners=True)
    assert outcome.state == "SUCCESS"
    assert {uid for uid, _ in owners(host.target).values()} == {0}
    assert {path for path, (_, gid) in owners(host.target).items() if gid} == {"bin/run", "data/a"}
    (warning,) = outcome.report.warnings
    assert warning.startswith("4 entries do not get the owner or group of the source: ")
    assert "owner 'daemon' is not among this host's owners" in warning
    again = await synchronise(source, host, owners=True)
    assert is_silent(again.from_agent.messages)
    assert again.report.warnings == ()
    assert await drifted(host) == 0


@pytest.mark.parametrize("name", ["no-such-user", "0", "rоot"])
async def test_an_unknown_name_is_nobody(source: Path, host: Host, name: str) -> None:
    """Not root, not a number, and not whoever has the file: nothing is given away for it."""
    host.allow(owners=(*NAMES, "no-such-user", "0", "rоot"))
    tree = await TreeSource.build(source)
    await synchronise(tree, host)
    give(host.target, {"data/b": daemon()})
    strange = named(tree, name, "")
    outcome = await synchronise(strange, host)
    if name == "0":
        assert outcome.state == "FAILED ProtocolError"
        assert owners(host.target)["data/b"] == daemon()
        return
    assert outcome.state == "SUCCESS"
    assert owners(host.target)["data/b"] == daemon()
    assert len(outcome.report.warnings) == 1
    assert outcome.report.warnings[0].startswith("7 entries do not get")
    assert "agent's own" not in outcome.report.warnings[0]  # who has it keeps it
    assert is_silent((await synchronise(strange, host)).from_agent.messages)


async def test_a_name_that_comes_to_be_known_is_used(
    source: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a glance remembers holds only as long as the names mean the same."""
    host.allow(owners=("fresh",))
    tree = named(await TreeSource.build(source), "fresh", "")
    await synchronise(tree, host)
    await synchronise(tree, host)
    real = libc.find_account

    def with_fresh(kind: Literal["user", "group"], key: str | int) -> Account | None:
        return Account("fresh", 4321) if key == "fresh" else real(kind, key)

    monkeypatch.setattr(libc, "find_account", with_fresh)
    assert (await synchronise(tree, host)).state == "SUCCESS"
    assert {uid for uid, _ in owners(host.target).values()} == {4321}


async def test_a_host_that_does_not_answer_holds_nobody_up(
    source: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    tree = await TreeSource.build(source, owners=True)
    real = libc.find_account

    def hang(kind: Literal["user", "group"], key: str | int) -> Account | None:
        answers.wait()
        return real(kind, key)

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "LOOKUP_SECONDS", 0.05)
        patch.setattr(libc, "find_account", hang)
        try:
            for _ in range(10):  # more than may hang at once
                outcome = await synchronise(tree, host)
                assert outcome.state == "FAILED Busy"
                assert "whether it has the user 'daemon'" in outcome.report.message
        finally:
            answers.set()
    assert (await synchronise(source, host, owners=True)).state == "SUCCESS"
    assert owners(host.target) == owners(source)


async def test_a_file_with_another_name_elsewhere_is_not_given_away(
    tmp_path: Path, source: Path, host: Host
) -> None:
    """Who may make links in a target must not get what they lead to."""
    await synchronise(source, host, owners=True)
    outside = tmp_path / "precious"
    outside.write_bytes(TREE["data/a"])  # type: ignore[arg-type]
    (host.target / "data/a").unlink()
    os.link(outside, host.target / "data/a")
    outcome = await synchronise(source, host, owners=True)
    assert outcome.state == "SUCCESS"
    assert outcome.report.bytes_received == 0
    assert (outside.stat().st_uid, outside.stat().st_nlink) == (0, 1)
    assert owners(host.target) == owners(source)
    assert read_tree(host.target) == TREE


def while_content_travels(do: Callable[[], object]) -> Callable[[MemoryChannel, MemoryChannel], None]:
    """`do` is done once, when the first content is sent: long after the look."""

    def prepare(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        left = [do]

        def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if payload is not None and left:
                left.pop()()
            return [(message, payload)]

        primary.alter = alter

    return prepare


async def test_what_could_not_be_given_away_is_told_and_put_right_next_time(
    tmp_path: Path, source: Path, host: Host
) -> None:
    """A backup makes a second name of a file, after the look and before the file would be given away."""
    await synchronise(source, host, owners=True)
    give(source, {"data/a": daemon()})
    (source / "data/b").write_bytes(b"another")
    backup = tmp_path / "backup"
    link = while_content_travels(lambda: os.link(host.target / "data/a", backup))
    outcome = await synchronise(source, host, owners=True, prepare=link)
    assert outcome.state == "SUCCESS"
    assert owners(host.target)["data/a"] == nobody()
    assert not outcome.report.owners_equal
    assert not (await observe(host)).owners_equal
    outcome = await synchronise(source, host, owners=True)
    assert outcome.report.owners_equal
    assert owners(host.target) == owners(source)
    assert (backup.stat().st_uid, backup.stat().st_gid) == nobody()
    assert is_silent((await synchronise(source, host, owners=True)).from_agent.messages)


@pytest.mark.parametrize("fresh", [False, True], ids=["there before", "not there before"])
async def test_a_directory_that_nobody_looked_at_is_not_given_away(
    tmp_path: Path, source: Path, host: Host, fresh: bool
) -> None:
    """Somebody who may rename things in the target puts another one there after the look."""
    await synchronise(source, host, owners=True)
    if fresh:
        (source / "empty/new").mkdir()
    path = "empty/new" if fresh else "empty"
    give(source, {path: daemon()})
    (source / "data/b").write_bytes(b"another")
    (tmp_path / "precious").mkdir()

    def swap() -> None:
        # The new one is made while this writes, before content travels.
        (host.target / path).rename(tmp_path / "aside")
        (tmp_path / "precious").rename(host.target / path)

    outcome = await synchronise(source, host, owners=True, prepare=while_content_travels(swap))
    assert outcome.state == "SUCCESS"
    assert owners(host.target)[path] == ROOT
    assert not outcome.report.owners_equal
    assert (await synchronise(source, host, owners=True)).report.owners_equal
    assert owners(host.target) == owners(source)


async def test_a_directory_in_place_of_a_file_gets_its_owner_at_once(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    (source / "data/b").unlink()
    write_tree(source, {"data/b/deep": b"c"})
    give(source, {"data/b": daemon()})
    assert (await synchronise(source, host, owners=True)).report.owners_equal
    assert owners(host.target) == owners(source)


async def test_ignored_permissions_leave_owners_alone(source: Path, host: Host) -> None:
    tree = await TreeSource.build(source, owners=True, ignore_permissions=True)
    assert tree.owners == b""
    await synchronise(source, host, owners=True, ignore_permissions=True)
    assert set(owners(host.target).values()) == {ROOT}
    give(host.target, {"data/b": daemon()})
    assert (await look_closely(host)).owners_equal
    host_task = host.task(b"", owners=b"o" * 32, features=(OWNERS,), ignore_permissions=True)
    assert owners_of(host_task) == b""


async def test_when_they_no_longer_count_they_stay_and_are_no_drift(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    await synchronise(source, host, owners=True)
    outcome = await synchronise(source, host)
    assert is_silent(outcome.from_agent.messages)
    assert owners(host.target) == owners(source)
    give(host.target, {"data/b": daemon()})
    assert await drifted(host) == 0
    assert (await look_closely(host)).owners_equal
    assert is_silent((await synchronise(source, host)).from_agent.messages)


async def test_a_local_edit_that_is_kept_keeps_its_owner(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    (host.target / "data/a").write_bytes(b"mine")
    give(host.target, {"data/a": (4, 4)})
    for _ in range(2):
        outcome = await synchronise(source, host, owners=True, on_local_edit="keep")
        assert outcome.state == "SUCCESS"
        assert owners(host.target)["data/a"] == (4, 4)
    assert (await look_closely(host)).owners_equal


async def test_each_release_gets_its_owners(source: Path, host: Host) -> None:
    asked = {"strategy": "release", "owners": True}
    assert (await synchronise(source, host, **asked)).state == "SUCCESS"  # type: ignore[arg-type]
    current = host.target / "current"
    assert owners(current.resolve()) == owners(source)
    give(current.resolve(), {"data/a": (4, 4)})
    assert (await synchronise(source, host, **asked)).state == "SUCCESS"  # type: ignore[arg-type]
    assert owners(current.resolve()) == owners(source)
    (source / "data/b").write_bytes(b"second")
    give(source, {"data/b": nobody()})
    first = current.resolve()
    assert (await synchronise(source, host, **asked)).state == "SUCCESS"  # type: ignore[arg-type]
    assert current.resolve() != first
    assert owners(current.resolve()) == owners(source)
    assert is_silent((await synchronise(source, host, **asked)).from_agent.messages)  # type: ignore[arg-type]


async def test_a_look_says_what_would_be_given_away(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    give(host.target, {"data/a": (4, 4), "bin": (4, 4), "link": (4, 4), "bin/run": (4, 4)})
    (host.target / "bin/run").chmod(0o700)
    before = owners(host.target)
    _, itemising = await itemise(source, host, owners=True)
    assert deeds(itemising) == {
        "bin": "owner",
        "bin/run": "owner+mode",
        "data/a": "owner",
        "link": "owner",
    }
    assert itemising.sums is not None
    assert itemising.sums.bytes_requested == 0
    assert owners(host.target) == before
    _, itemising = await itemise(source, host)
    assert deeds(itemising) == {"bin/run": "mode"}


class TestOwners:
    """Of a host, one name at a time."""

    def test_who_may_not_give_files_away_gives_none(self, tmp_path: Path) -> None:
        tmp_path.joinpath("f").touch()
        found = found_from((tmp_path / "f").lstat())
        unable = Owners(NAMES, may_give=False)
        assert unable.ids(("daemon", "nogroup")) == (UNCHANGED, UNCHANGED)
        assert not unable.differs(("daemon", "nogroup"), found)
        warning = unable.warning([(3, "daemon", "nogroup"), (2, "root", "root")])
        assert warning.startswith("3 entries")
        assert "CAP_CHOWN" in warning
        assert Owners(NAMES).ids(("daemon", "nogroup")) == (daemon()[0], nobody()[1])

    def test_a_warning_is_short_however_many_names_there_are(self) -> None:
        warning = Owners(()).warning([(2, f"user{number}", f"group{number}") for number in range(1000)])
        assert warning.startswith("2000 entries")
        assert warning.endswith("and 1995 more names")


OWNER_IDS = st.deferred(
    lambda: st.sampled_from([ROOT, daemon(), nobody(), (daemon()[0], nobody()[1]), (0, nobody()[1])])
)


@st.composite
def owned_trees(draw: st.DrawFn) -> tuple[Tree, dict[str, tuple[int, int]]]:
    tree = draw(trees())
    return tree, {path: draw(OWNER_IDS) for path in tree}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=owned_trees(), there=owned_trees(), placed=st.booleans(), data=st.data())
async def test_a_sync_makes_owners_equal_too(
    tmp_path: Path,
    wanted: tuple[Tree, dict[str, tuple[int, int]]],
    there: tuple[Tree, dict[str, tuple[int, int]]],
    placed: bool,
    data: st.DataObject,
) -> None:
    """Over what somebody left there, or what was placed; and once more after owners alone changed."""
    base = tmp_path / os.urandom(8).hex()
    host = Host(base / "host")
    host.allow(owners=NAMES)
    first = write_tree(base / "first" if placed else host.target, there[0])
    give(first, there[1])
    if placed:
        assert (await synchronise(first, host, owners=True, allow_empty=True)).state == "SUCCESS"
    source = write_tree(base / "source", wanted[0])
    for dress in _dresses(wanted, data):
        give(source, dress)
        outcome = await synchronise(source, host, owners=True, allow_empty=True, delete_foreign=True)
        assert outcome.state == "SUCCESS", outcome.report.message
        assert read_tree(host.target) == wanted[0]
        assert owners(host.target) == owners(source)
        assert modes(host.target) == modes(source)
        again = await synchronise(source, host, owners=True, allow_empty=True, delete_foreign=True)
        assert is_silent(again.from_agent.messages)


def _dresses(
    wanted: tuple[Tree, dict[str, tuple[int, int]]], data: st.DataObject
) -> Iterator[dict[str, tuple[int, int]]]:
    yield wanted[1]
    yield {path: data.draw(OWNER_IDS) for path in wanted[0]}
