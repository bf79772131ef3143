"""What a task does where somebody else was at work in its target: edits, guards, and what is in the way."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from agent.index import BACKUP_MARK
from agent.manifest import load, manifest_path, save
from tests.agent.syncing import Host, observe, read_tree, synchronise, write_tree


@pytest.mark.parametrize("before_first_task", [True, False])
async def test_local_edits_by_policy(source: Path, host: Host, before_first_task: bool) -> None:
    if before_first_task:
        write_tree(host.target, {"index.html": b"edited"})
    else:
        await synchronise(source, host)
        (host.target / "index.html").write_bytes(b"edited")

    kept = await synchronise(source, host, on_local_edit="keep")
    assert kept.state == "SUCCESS"
    assert kept.report.local_edits == 1
    assert kept.report.established == kept.report.observed or before_first_task
    assert (host.target / "index.html").read_bytes() == b"edited"
    again = await synchronise(source, host, on_local_edit="keep")
    assert again.from_agent.messages == ["TaskReport"]
    assert again.report.local_edits == 1
    (source / "index.html").write_bytes(b"newer")
    assert (await synchronise(source, host, on_local_edit="keep")).state == "SUCCESS"
    assert (host.target / "index.html").read_bytes() == b"edited"

    saved = await synchronise(source, host, on_local_edit="backup")
    assert saved.state == "SUCCESS"
    assert (host.target / "index.html").read_bytes() == b"newer"
    (backup,) = [path for path in host.target.iterdir() if BACKUP_MARK in path.name]
    assert backup.read_bytes() == b"edited"
    assert any(backup.name in warning for warning in saved.report.warnings)

    (host.target / "index.html").write_bytes(b"edited again")
    assert (await synchronise(source, host, delete_foreign=True)).state == "SUCCESS"
    assert (host.target / "index.html").read_bytes() == b"newer"
    assert backup.read_bytes() == b"edited"


async def test_a_kept_edit_is_never_deleted(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (host.target / "index.html").write_bytes(b"edited")
    (source / "index.html").unlink()
    await synchronise(source, host, on_local_edit="keep")
    assert (host.target / "index.html").read_bytes() == b"edited"
    assert (await synchronise(source, host)).from_agent.messages == ["TaskReport"]
    assert (host.target / "index.html").read_bytes() == b"edited"


async def test_what_was_foreign_and_kept_is_never_deleted(source: Path, host: Host) -> None:
    """It stood there before trueup came: not even `overwrite` makes it something that trueup placed."""
    write_tree(host.target, {"index.html": b"theirs"})
    await synchronise(source, host, on_local_edit="keep")
    (source / "index.html").unlink()
    assert (await synchronise(source, host, on_local_edit="overwrite")).state == "SUCCESS"
    assert (host.target / "index.html").read_bytes() == b"theirs"
    assert (await synchronise(source, host)).from_agent.messages == ["TaskReport"]


@pytest.mark.parametrize("on_local_edit", ["keep", "backup", "overwrite"])
async def test_a_new_file_cut_short_by_a_crash_is_written_again(
    source: Path, host: Host, on_local_edit: str
) -> None:
    """The name was on the disk, the content was not: as a power cut right after the rename leaves it."""
    await synchronise(source, host)
    path = manifest_path(host.state, str(host.target))
    done = load(path)
    assert done is not None
    (entry,) = [placed.entry for placed in done.placed if placed.entry.path == "index.html"]
    rest = tuple(placed for placed in done.placed if placed.entry != entry)
    save(path, msgspec.structs.replace(done, placed=rest, pending=(entry,), tree=b""), durable=False)
    os.truncate(host.target / "index.html", 0)
    os.utime(host.target / "index.html", ns=(entry.mtime_ns, entry.mtime_ns))
    outcome = await synchronise(source, host, on_local_edit=on_local_edit)
    assert outcome.state == "SUCCESS"
    assert outcome.report.local_edits == 0
    assert read_tree(host.target) == read_tree(source)


async def test_guards(source: Path, host: Host, tmp_path: Path) -> None:
    await synchronise(source, host)
    before = read_tree(host.target)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (await synchronise(empty, host)).state == "FAILED EmptyTree"
    assert (await synchronise(empty, host, allow_empty=True, max_delete=0.5)).state == (
        "FAILED TooManyDeletions"
    )
    shutil.rmtree(source / "static")
    shutil.rmtree(source / "ü")
    assert (await synchronise(source, host, max_delete=0.4)).state == "FAILED TooManyDeletions"
    assert read_tree(host.target) == before
    assert (await synchronise(source, host, max_delete=0.6)).state == "SUCCESS"
    assert (await synchronise(empty, host, allow_empty=True)).state == "SUCCESS"
    assert read_tree(host.target) == {}
    assert (await synchronise(empty, host, allow_empty=True)).from_agent.messages == ["TaskReport"]


async def test_a_target_that_vanished_is_made_again(source: Path, host: Host) -> None:
    await synchronise(source, host)
    shutil.rmtree(host.target)
    assert (await observe(host)).observed == b""
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def test_a_target_that_was_replaced_keeps_what_is_not_ours(source: Path, host: Host) -> None:
    await synchronise(source, host)
    shutil.rmtree(host.target)
    # Another directory, with files under names that we once placed and now would delete.
    write_tree(host.target, {"index.html": b"not ours", "static/app.js": b"not ours either", "x": b"1"})
    (source / "index.html").unlink()
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert (host.target / "index.html").read_bytes() == b"not ours"
    assert (host.target / "x").read_bytes() == b"1"
    # A copy of what we placed is ours again.
    restored = host.target.with_name("restored")
    shutil.copytree(host.target, restored, symlinks=True)
    shutil.rmtree(host.target)
    restored.rename(host.target)
    (source / "bin/run").unlink()
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert not (host.target / "bin/run").exists()


async def test_a_target_that_is_no_directory_is_refused(source: Path, host: Host, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"a": b"1"})
    host.target.symlink_to(outside)
    assert (await synchronise(source, host)).state == "FAILED PathRefused"
    assert read_tree(outside) == {"a": b"1"}
    host.target.unlink()
    host.target.write_bytes(b"a file")
    assert (await synchronise(source, host)).state == "FAILED PathRefused"
    assert host.target.read_bytes() == b"a file"


async def test_a_symlink_inside_the_target_is_replaced_and_not_followed(
    source: Path, host: Host, tmp_path: Path
) -> None:
    outside = write_tree(tmp_path / "outside", {"app.js": b"theirs"})
    host.target.mkdir()
    (host.target / "static").symlink_to(outside)
    (host.target / "index.html").symlink_to(outside / "app.js")
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert read_tree(outside) == {"app.js": b"theirs"}
    assert read_tree(host.target) == read_tree(source)
