"""What changed between two looks at a directory is told the same, however much of them is the very same."""

import os
import pwd
import time
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.messages import Entry
from reconciler.directories import Directories
from reconciler.sync.directory_changes import Kind, changes
from tests.agent.test_runs import indexes
from tests.reconciler.source_directories import found, spec_of


def one_by_one(before: list[Entry], after: list[Entry], *, modes: bool) -> dict[str, Kind]:
    left_out = {"mtime_ns": 0} if modes else {"mtime_ns": 0, "mode": 0}
    old, new = (
        {entry.path: msgspec.structs.replace(entry, **left_out) for entry in each} for each in (before, after)
    )
    told: dict[str, Kind] = {}
    for path in old | new:
        if path not in new:
            told[path] = "removed"
        elif path not in old:
            told[path] = "added"
        elif old[path] != new[path]:
            told[path] = "changed"
    return told


@given(before=indexes(), others=indexes(), gone=st.sets(st.integers(0, 40)), modes=st.booleans())
def test_each_change_is_told(before: list[Entry], others: list[Entry], gone: set[int], modes: bool) -> None:
    """Most entries are the same objects, in their places or behind what came or went."""
    kept = {entry.path: entry for number, entry in enumerate(before) if number not in gone}
    after = [entry for _, entry in sorted({**{entry.path: entry for entry in others}, **kept}.items())]
    assert changes(before, after, modes=modes) == one_by_one(before, after, modes=modes)
    assert changes(after, before, modes=modes) == one_by_one(after, before, modes=modes)
    again = [
        msgspec.structs.replace(entry, mode=entry.mode ^ 1, mtime_ns=9) if number in gone else entry
        for number, entry in enumerate(before)
    ]
    assert changes(before, again, modes=modes) == one_by_one(before, again, modes=modes)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_another_owner_shows_where_the_row_of_names_is_the_same(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """As a file that goes and one that comes leave each name where it was, but for another file."""
    directories = Directories(nursery.start_soon, (), now=lambda: time.time_ns() + 60 * 10**9)
    site, daemon = tmp_path / "site", pwd.getpwnam("daemon").pw_uid
    site.mkdir()
    for name in "abc":
        (site / name).write_text(name)
        os.chown(site / name, 0 if name == "a" else daemon, 0)
    first = await directories.look(spec_of(site))
    directories.take_changes()
    (site / "a").unlink()
    os.chown(site / "b", 0, 0)
    (site / "d").write_text("d")
    os.chown(site / "d", daemon, 0)
    second = await directories.look(spec_of(site))
    assert found(second).source.owned == found(first).source.owned
    [change] = directories.take_changes()
    assert dict(change.kinds) == {"a": "removed", "b": "changed", "d": "added"}
