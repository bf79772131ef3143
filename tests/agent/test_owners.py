"""Owner and group by name travel with a tree: they are placed, compared, foreseen and healed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.manifest import load, manifest_path
from agent.wire.messages import OWNERS
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
from tests.agent.syncing import Host, Tree, modes, observe, read_tree, synchronise, write_tree
from tests.agent.test_any_trees import trees
from tests.agent.test_itemise import deeds, itemise

__all__ = ["host", "source"]

pytestmark = NEEDS_ROOT_AND_USERS


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


async def test_a_directory_in_place_of_a_file_gets_its_owner_at_once(source: Path, host: Host) -> None:
    await synchronise(source, host, owners=True)
    (source / "data/b").unlink()
    write_tree(source, {"data/b/deep": b"c"})
    give(source, {"data/b": daemon()})
    assert (await synchronise(source, host, owners=True)).report.owners_equal
    assert owners(host.target) == owners(source)


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
