"""What is given to nobody: names that a host does not allow or know, and files that are to be left alone."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from agent import accounts, libc
from agent.features import owners_of
from agent.libc import Account
from agent.owners import UNCHANGED, Owners
from agent.ownership import gather, owners_digest
from agent.scan import found_from
from agent.wire.messages import OWNERS, AnyMessage
from reconciler.sync.serving import TreeSource
from tests.agent.owning import (
    NAMES,
    NEEDS_ROOT_AND_USERS,
    ROOT,
    TREE,
    daemon,
    drifted,
    give,
    host,
    is_silent,
    look_closely,
    nobody,
    owners,
    source,
)
from tests.agent.syncing import Host, observe, read_tree, synchronise
from tests.channelpair import MemoryChannel

__all__ = ["host", "source"]

pytestmark = NEEDS_ROOT_AND_USERS


def named(source: TreeSource, owner: str, group: str) -> TreeSource:
    """As if all of it belonged to these."""
    owned = gather([entry.path for entry in source.entries], {e.path: (owner, group) for e in source.entries})
    return replace(source, owned=owned, owners=owners_digest(owned))


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
