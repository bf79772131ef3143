"""Names in a directory that cannot be synced: what is told says in which directory they are."""

import os
from pathlib import Path

import pytest

from reconciler.directories import Directories
from tests.reconciler.source_directories import directories, setback, site, spec_of

__all__ = ["directories", "site"]


async def test_a_name_that_is_no_text(directories: Directories, site: Path) -> None:
    (site / "css" / os.fsdecode(b"\xff")).write_text("x\n")
    told = setback(await directories.look(spec_of(site))).message
    assert told.startswith(f"in {site}, path ")
    assert "css/" in told
    assert told.endswith("is not valid UTF-8: rename or ignore it")
    told.encode()


@pytest.mark.parametrize("name", ["INDEX.html", "Index.HTML"])
async def test_names_that_some_hosts_take_for_one(directories: Directories, site: Path, name: str) -> None:
    (site / name).write_text("x\n")
    told = setback(await directories.look(spec_of(site))).message
    assert told.startswith(f"in {site}, ")
    assert f"{name!r}" in told
    assert "rename one of them at the source" in told
