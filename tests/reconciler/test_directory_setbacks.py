"""What keeps a look at a source directory from its end: gone, refused, unsteady or slow ones."""

import errno
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.scan import Found, hash_files
from reconciler.directories import Directories
from reconciler.observation import Setback
from tests.agent.syncing import Host, synchronise
from tests.reconciler.source_directories import directories, found, paths, setback, site, spec_of

__all__ = ["directories", "site"]


async def test_a_disk_that_gives_errors_is_a_setback(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(site)
    await directories.look(spec)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        (site / "index.html").write_text("other\n")
        failed = setback(await directories.look(spec))
    assert failed.reason == "ObservationFailed"
    assert f"cannot read {site}/index.html: Input/output error" in failed.message
    assert "index.html" in paths(found(await directories.look(spec)))


async def test_a_directory_that_is_not_there(directories: Directories, site: Path) -> None:
    spec = spec_of(site)
    await directories.look(spec)
    shutil.rmtree(site)
    gone = setback(await directories.look(spec))
    assert gone == Setback(
        "ObservationFailed", f"cannot read the directory {site}: No such file or directory", unknown=True
    )
    # What changed meanwhile is known once it is there again.
    (site / "index.html").parent.mkdir()
    (site / "index.html").write_text("back\n")
    assert paths(found(await directories.look(spec))) == ["index.html"]
    [change] = directories.take_changes()
    assert dict(change.kinds) == {
        "css": "removed",
        "css/a.css": "removed",
        "css/a.map": "removed",
        "index.html": "changed",
    }


async def test_directories_that_must_not_be_sent(
    directories: Directories, site: Path, tmp_path: Path
) -> None:
    link, above = tmp_path / "link", tmp_path / "above"
    link.symlink_to(site)
    above.symlink_to(tmp_path)
    inside = tmp_path / "state/mirrors"
    inside.mkdir()
    for directory, says in (
        (link, "leads through a symlink"),
        (above / "site", "leads through a symlink"),
        (tmp_path / "state", "lies in"),
        (inside, "lies in"),
        (tmp_path, "contains"),
    ):
        refused = setback(await directories.look(spec_of(directory)))
        assert (refused.reason, refused.unknown) == ("PathRefused", False)
        assert says in refused.message
        assert directory.name in refused.message


@pytest.mark.parametrize("kind", ["empty", "ignored", "file"])
async def test_nothing_to_sync_is_not_an_empty_tree(
    directories: Directories, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("no directory\n")
    else:
        place.mkdir()
    if kind == "ignored":
        (place / "tmp").mkdir()
        (place / "tmp/x").write_text("x\n")
    refused = setback(await directories.look(spec_of(place)))
    assert refused.unknown
    assert refused.reason == "ObservationFailed"
    assert str(place) in refused.message


async def test_what_all_targets_are_told_names_the_node_of_none(
    directories: Directories, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    told = "and nothing is deleted for that: is it mounted, and was it built?"
    refused = setback(await directories.look(spec_of(place)))
    assert refused.message == f"{place} holds nothing that would be synced, {told}"
    # One target has something to get, and still nothing is done.
    (place / "a.map").write_text("map\n")
    refused = setback(await directories.look(spec_of(place)))
    assert refused.message == f"{place} holds nothing that would be synced with exclude *.map, {told}"
    # The one that gets nothing may be the one without rules, where the other takes back what is ignored.
    refused = setback(await directories.look(spec_of(place, "ignore_patterns: ['*.map'],", exclude="!*.map")))
    assert refused.message == f"{place} holds nothing that would be synced, {told}"


async def test_an_ignore_file_that_is_not_there(directories: Directories, site: Path) -> None:
    refused = setback(await directories.look(spec_of(site, "ignore_file: rules,")))
    assert refused.reason == "RevisionNotFound"
    (site / "rules").symlink_to("/etc/passwd")
    assert setback(await directories.look(spec_of(site, "ignore_file: rules,"))).reason == "PathRefused"


async def test_a_directory_that_changes_while_it_is_read(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer strikes after the walk and before the file is read, as often as it likes."""
    strikes = 2

    async def written_meanwhile(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        nonlocal strikes
        files = list[tuple[str, Found]](files)
        if files and strikes:
            strikes -= 1
            there = (site / "index.html").stat()
            (site / "index.html").write_text("more\n")
            os.utime(site / "index.html", ns=(there.st_atime_ns, there.st_mtime_ns + 1))
        return await hash_files(root_fd, files, **how)

    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    look = found(await directories.look(spec_of(site)))
    assert [entry.size for entry in look.source.entries if entry.path == "index.html"] == [5]
    strikes = 1000
    (site / "index.html").write_text("begin\n")
    unsteady = setback(await directories.look(spec_of(site)))
    assert (unsteady.reason, unsteady.unknown) == ("SourceChanged", True)
    assert "index.html' changed while it was read" in unsteady.message
    strikes = 0
    (site / "index.html").write_text("the end\n")
    assert found(await directories.look(spec_of(site))).facts.digest != look.facts.digest


async def test_a_file_that_grows_all_the_time_keeps_nothing_back(
    directories: Directories, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log: something is added each time before it is read. It is taken as long as it was when seen."""
    lines = random.Random(1)

    def grow() -> None:
        with (site / "log").open("ab") as file:
            file.write(lines.randbytes(70_000))

    async def written_meanwhile(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        grow()
        return await hash_files(root_fd, files, **how)

    async def written_over(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        (site / "log").write_bytes(lines.randbytes((site / "log").stat().st_size + 1))
        return await hash_files(root_fd, files, **how)

    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    host = Host(tmp_path / "host")
    grow()
    for known in (1, 2):
        look = found(await directories.look(spec_of(site)))
        grow()
        outcome = await synchronise(look.source, host)
        assert outcome.state == "SUCCESS", outcome.report.message
        assert (host.target / "index.html").read_bytes() == (site / "index.html").read_bytes()
        [size] = [entry.size for entry in look.source.entries if entry.path == "log"]
        assert 0 < size < (site / "log").stat().st_size
        assert (host.target / "log").read_bytes() == (site / "log").read_bytes()[:size]
        (site / "index.html").write_text(f"{known}\n")
    # What is being written over, and longer than before, is neither the one nor the other.
    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_over)
    unsteady = setback(await directories.look(spec_of(site)))
    assert (unsteady.reason, unsteady.unknown) == ("SourceChanged", True)
    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    # And what was written over since it was seen is not sent for that.
    look = found(await directories.look(spec_of(site)))
    (site / "log").write_bytes(lines.randbytes(1_000_000))
    outcome = await synchronise(look.source, host)
    assert outcome.state == "FAILED SourceChanged"


async def test_a_directory_that_takes_long(site: Path, autojump_clock: MockClock) -> None:
    """A pass goes on without it; who comes meanwhile waits for the same look; then a pass is asked for."""
    begun: list[tuple[Any, ...]] = []
    late: list[str] = []
    directories = Directories(lambda *given: begun.append(given), ())
    directories.on_late = late.append
    spec = spec_of(site)
    assert setback(await directories.look(spec, patience=10)).reason == "Progressing"
    assert setback(await directories.look(spec, patience=10)).unknown
    [(read, *arguments)] = begun
    await read(*arguments)
    assert late == ["projects/branch/site"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directories.look, spec)
        await trio.testing.wait_all_tasks_blocked()
        read, *arguments = begun[-1]
        await read(*arguments)
    assert late == ["projects/branch/site"]
