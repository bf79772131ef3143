"""Files of a target that somebody gave further names: what these name stays as it is."""

import os
from pathlib import Path

import pytest

from tests.agent.syncing import Host, modes, observe, read_tree, synchronise, write_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", {"a": b"the same", "b": b"the same"})


@pytest.mark.parametrize("change", ["mode", "time"])
async def test_a_name_outside_of_the_target_keeps_what_it_names(
    source: Path, tmp_path: Path, change: str
) -> None:
    """As that of a snapshot made by `cp -al`."""
    host = Host(tmp_path / "host")
    await synchronise(source, host)
    kept = tmp_path / "kept"
    kept.hardlink_to(host.target / "a")
    before = kept.stat()
    if change == "mode":
        (source / "a").chmod(0o600)
    else:
        os.utime(source / "a", ns=(1, 1))
        (source / "b").write_bytes(b"another")  # times alone are no difference
    outcome = await synchronise(source, host)
    assert (outcome.state, outcome.from_primary.payload_bytes) == ("SUCCESS", 7 if change == "time" else 0)
    assert (kept.stat().st_mode, kept.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert read_tree(host.target) == read_tree(source)
    assert modes(host.target) == modes(source)
    assert (host.target / "a").stat().st_mtime_ns == (source / "a").stat().st_mtime_ns


async def test_two_names_of_the_tree_for_one_file_come_apart_where_their_modes_differ(
    source: Path, tmp_path: Path
) -> None:
    (source / "b").chmod(0o600)
    host = Host(tmp_path / "host")
    await synchronise(source, host)
    (host.target / "b").unlink()
    (host.target / "b").hardlink_to(host.target / "a")
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert modes(host.target) == modes(source)
    assert (await observe(host)).observed == (await synchronise(source, host)).report.established
    assert modes(host.target) == modes(source)
