"""The writer's own promises: who may read what when, whole names, nothing half-done under a name."""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.changes import Write
from agent.errors import PathRefused
from agent.failures import TaskFailed
from agent.folders import OPEN_FOLDER, Folders
from agent.ignore import Ignore
from agent.index import BACKUP_MARK, STAGING, file_entry, symlink_entry
from agent.scan import scan
from agent.staging import sweep_staging
from agent.wire.messages import Entry
from agent.writer import Writer
from tests.agent.syncing import read_tree, write_tree

Make = Callable[..., Writer]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    fd = os.open(root, OPEN_FOLDER)
    writers: list[Writer] = []

    def build(**options: object) -> Writer:
        writer = Writer(fd, scan(fd, Ignore(())).found, **options)  # type: ignore[arg-type]
        writer.open_staging()
        writers.append(writer)
        return writer

    yield build
    for writer in writers:
        writer.close()
    os.close(fd)


def a_file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return file_entry(
        path, mode=mode, size=len(content), mtime_ns=10**18, blocks=hashlib.sha256(content).digest()
    )


def put(writer: Writer, path: str, content: bytes, *, mode: int = 0o644, backup: bool = False) -> None:
    with Folders(writer.root_fd) as folders:
        writer.put(folders, Write(a_file(path, content, mode), backup), content)


def commit_all(writer: Writer) -> None:
    while writer.waiting:
        writer.commit(1)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_nobody_else_can_open_what_is_being_written(
    make: Make, root: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first moment a file is 0600 or less in a 0700 directory, whatever the umask is."""
    seen: list[int] = []
    opening = os.open

    def watched(path: object, flags: int, *rest: int, **options: int) -> int:
        fd = opening(path, flags, *rest, **options)  # type: ignore[arg-type]
        if flags & os.O_CREAT:
            seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    old = os.umask(umask)
    try:
        writer = make()
        monkeypatch.setattr(os, "open", watched)
        writer.put_rendered("conf", b"content", mode=0o640, uid=-1, gid=-1)
        put(writer, "file", b"content", mode=0o755)
        monkeypatch.undo()
        staging = stat.S_IMODE((root / STAGING).stat().st_mode)
    finally:
        os.umask(old)
    assert all(mode & 0o177 == 0 for mode in seen)
    assert len(seen) == 2
    assert staging & 0o077 == 0
    assert stat.S_IMODE((root / "conf").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o755


def test_what_is_new_lands_at_once_and_what_replaces_waits(make: Make, root: Path) -> None:
    write_tree(root, {"there": b"old"})
    writer = make()
    put(writer, "there", b"new")
    put(writer, "fresh", b"new")
    assert (root / "there").read_bytes() == b"old"
    assert (root / "fresh").read_bytes() == b"new"
    assert writer.waiting == 1
    commit_all(writer)
    assert (root / "there").read_bytes() == b"new"
    assert writer.written == 2


def test_closing_half_way_leaves_the_old_tree(make: Make, root: Path) -> None:
    write_tree(root, {"a": b"old", "b": b"old"})
    before = read_tree(root)
    writer = make()
    put(writer, "a", b"new")
    partial = writer.begin(Write(a_file("b", b"x" * 200_000)))
    with Folders(writer.root_fd) as folders:
        assert not writer.put_block(folders, partial, 0, b"x" * 131072)
    writer.close()
    assert read_tree(root) == before


@pytest.mark.parametrize("with_the_directory", [True, False])
def test_staging_that_somebody_takes_away_is_told_of_by_the_paths_of_the_target(
    make: Make, root: Path, with_the_directory: bool
) -> None:
    write_tree(root, {"d/there": b"old"})
    writer = make()
    put(writer, "d/there", b"new")
    shutil.rmtree(root / STAGING)
    if not with_the_directory:
        (root / STAGING).mkdir(0o700)
        os.close(writer.staging_fd)
        writer.staging_fd = os.open(root / STAGING, OPEN_FOLDER)
    taken = "' was being put together in '.trueup-staging', and somebody took that away"
    with pytest.raises(TaskFailed, match=f"^'d/there{taken}"):
        writer.commit(1)
    if with_the_directory:
        with pytest.raises(TaskFailed, match=f"^'d/fresh{taken}"):
            put(writer, "d/fresh", b"new")
        with pytest.raises(TaskFailed, match=f"^'d/link{taken}"):
            writer.make_links([Write(symlink_entry("d/link", mtime_ns=0, link="there"))])
    assert read_tree(root) == {"d": None, "d/there": b"old"} | ({} if with_the_directory else {STAGING: None})


def test_staging_that_somebody_takes_away_before_a_local_edit_is_kept(make: Make, root: Path) -> None:
    write_tree(root, {"there": b"old"})
    writer = make(on_local_edit="keep")
    put(writer, "there", b"new")
    (root / "there").write_bytes(b"edited")
    shutil.rmtree(root / STAGING)
    with pytest.raises(TaskFailed, match=r"^'there' was being put together in '\.trueup-staging'"):
        writer.commit(1)
    assert read_tree(root) == {"there": b"edited"}


def test_a_directory_that_somebody_takes_away_is_no_fault_of_staging(make: Make, root: Path) -> None:
    write_tree(root, {"d/there": b"old"})
    writer = make()
    put(writer, "d/there", b"new")
    shutil.rmtree(root / "d")
    with pytest.raises(FileNotFoundError) as failed:
        writer.commit(1)
    assert failed.value.filename == "d/there"


@pytest.mark.parametrize("name", ["plain", "n" * 255, "ü" * 127, "日" * 85])
def test_backups_keep_content_and_fit_a_name(make: Make, root: Path, name: str) -> None:
    write_tree(root, {f"d/{name}": b"edited"})
    for turn in (b"new", b"newer"):
        writer = make()
        put(writer, f"d/{name}", turn, backup=True)
        commit_all(writer)
        writer.close()
    assert (root / "d" / name).read_bytes() == b"newer"
    saved = sorted(path for path in (root / "d").iterdir() if BACKUP_MARK in path.name)
    assert sorted(path.read_bytes() for path in saved) == [b"edited", b"new"]
    assert all(path.name.startswith(name[:20]) for path in saved)


def test_a_symlink_is_backed_up_as_a_symlink(make: Make, root: Path) -> None:
    write_tree(root, {"a": "/nowhere"})
    writer = make()
    put(writer, "a", b"new", backup=True)
    commit_all(writer)
    (saved,) = writer.backups
    assert str((root / saved).readlink()) == "/nowhere"


def test_a_directory_that_appeared_meanwhile_is_not_replaced(make: Make, root: Path) -> None:
    writer = make()
    write_tree(root, {"a/mine": b"1"})
    with pytest.raises(TaskFailed) as caught:
        put(writer, "a", b"new")
    assert caught.value.code == "TargetChanged"
    assert (root / "a/mine").read_bytes() == b"1"


def test_a_parent_that_became_a_symlink_is_refused(make: Make, root: Path, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"keep": b"1"})
    write_tree(root, {"d/x": b"1"})
    writer = make()
    (root / "d").rename(root / "aside")
    (root / "d").symlink_to(outside)
    with pytest.raises(PathRefused):
        put(writer, "d/y", b"new")
    put(writer, "d/x", b"new")  # it was there, so it waits
    with pytest.raises(PathRefused):
        commit_all(writer)
    with pytest.raises(PathRefused):
        writer.make_folders([Entry(path="d/new", kind="directory", mode=0o755)])
    with pytest.raises(PathRefused):
        writer.make_links([Write(symlink_entry("d/l", mtime_ns=0, link="x"))])
    assert writer.delete(["d/x"]) == []  # nothing is there any more, as far as we may see
    assert read_tree(outside) == {"keep": b"1"}


@pytest.mark.parametrize(
    ("policy", "stays", "saved"),
    [("overwrite", False, False), ("keep", True, False), ("backup", False, True)],
)
def test_what_changed_before_its_deletion(
    make: Make, root: Path, policy: str, stays: bool, saved: bool
) -> None:
    write_tree(root, {"a": b"1"})
    writer = make(on_local_edit=policy)
    (root / "a").write_bytes(b"22")
    assert writer.delete(["a"]) == (["a"] if stays else [])
    assert (root / "a").exists() is stays
    assert bool(writer.backups) is saved


def test_what_appeared_before_a_deletion_stays(make: Make, root: Path) -> None:
    writer = make()
    write_tree(root, {"a": b"1", "d/x": b"1"})
    assert writer.delete(["d/x", "d", "a"]) == ["d/x", "d", "a"]
    assert set(read_tree(root)) == {"a", "d", "d/x", STAGING}


@pytest.mark.parametrize("leftover", [{"x/y": b"1", "1": b"2"}, None, "file", "symlink"])
def test_whatever_is_in_the_way_of_staging_goes(root: Path, tmp_path: Path, leftover: object) -> None:
    outside = write_tree(tmp_path / "outside", {"keep": b"1"})
    if isinstance(leftover, dict):
        write_tree(root / STAGING, leftover)
        (root / STAGING / "link").symlink_to(outside)
    elif leftover == "file":
        (root / STAGING).write_bytes(b"x")
    elif leftover == "symlink":
        (root / STAGING).symlink_to(outside)
    fd = os.open(root, OPEN_FOLDER)
    sweep_staging(fd)
    os.close(fd)
    assert list(root.iterdir()) == []
    assert read_tree(outside) == {"keep": b"1"}


def test_a_rendered_file_is_on_the_disk_before_it_has_its_name(
    make: Make, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave an empty file in place of the old one."""
    write_tree(root, {".env": b"old"})
    writer = make()
    at_sync: list[bytes] = []
    sync = os.fsync

    def watched(fd: int) -> None:
        at_sync.append((root / ".env").read_bytes())
        sync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    writer.put_rendered(".env", b"new", mode=0o600, uid=-1, gid=-1)
    assert at_sync == [b"old"]
    assert (root / ".env").read_bytes() == b"new"
