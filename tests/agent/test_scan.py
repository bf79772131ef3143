"""Scans see what is there, follow nothing, and never take "could not look" for "not there"."""

import errno
import hashlib
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import agent.scan
from agent.blocks import MIN_BLOCK, block_count
from agent.errors import PathRefused
from agent.folders import HELD, OPEN_FOLDER, Folders
from agent.ignore import DEFAULT_IGNORES, Ignore
from agent.index import STAGING
from agent.scan import Found, Scan, hash_files, look_at, scan, settled
from tests.agent.syncing import write_tree


def walk(root: Path, *lines: str, **options: object) -> Scan:
    fd = os.open(root, OPEN_FOLDER)
    try:
        return scan(fd, Ignore(lines), **options)  # type: ignore[arg-type]
    finally:
        os.close(fd)


def test_every_kind_is_found(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"12", "d/e": b"", "d/f": None, "l": "/etc", "d/up": ".."})
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        found = walk(tmp_path).found
    assert {path: there.kind for path, there in found.items()} == {
        "a": "file",
        "d": "directory",
        "d/e": "file",
        "d/f": "directory",
        "d/up": "symlink",
        "l": "symlink",
        "fifo": "other",
        "s": "other",
    }
    assert found["l"].link == "/etc"
    assert found["a"].size == 2


def test_ignored_reserved_and_own_names_are_left_out_with_all_below(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            ".git/config": b"",
            "x/.git/y": b"",
            "tmp/z": b"",
            "a.log": b"",
            "keep.log": b"",
            "conf/.env": b"",
            f"{STAGING}/1": b"",
            "a.trueup-backup-20250101T000000Z": b"",
            "stay": b"",
            "tmpfile": b"",
        },
    )
    result = walk(tmp_path, *DEFAULT_IGNORES, "*.log", "!keep.log", reserved={"conf/.env"})
    assert set(result.found) == {"x", "conf", "keep.log", "stay", "tmpfile"}
    assert {".git", "x/.git", "tmp", "a.log", "conf/.env", STAGING} <= result.ignored


@pytest.mark.parametrize(
    ("lines", "path", "is_dir", "ignored"),
    [
        (["node_modules/**"], "node_modules/a/b", False, True),
        (["node_modules/**"], "src/node_modules/a", False, False),
        (["**/node_modules"], "src/node_modules/a", False, True),
        (["/build"], "build", True, True),
        (["/build"], "src/build", True, False),
        (["tmp/"], "tmp", False, False),
        (["tmp/"], "tmp", True, True),
        (["tmp/"], "a/tmp/b", False, True),
        (["*.log", "!a.log"], "a.log", False, False),
        (["d/", "!d/a"], "d/a", False, True),
        ([], "a", False, False),
    ],
)
def test_ignore_patterns(lines: list[str], path: str, is_dir: bool, ignored: bool) -> None:
    assert Ignore(lines).covers(path, is_dir) is ignored


def test_only_named_directories_are_entered(tmp_path: Path) -> None:
    write_tree(tmp_path, {"ours/a": b"", "ours/deep/b": b"", "data/huge/c": b""})
    assert set(walk(tmp_path, only={"ours"}).found) == {"ours", "ours/a", "ours/deep", "data"}


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/b": b""})
    (tmp_path / "a").chmod(0)
    user = os.geteuid()
    fd = os.open(tmp_path, OPEN_FOLDER)
    try:
        if user == 0:
            os.seteuid(65534)  # root reads everything
        with pytest.raises(PermissionError):
            scan(fd, Ignore(()))
    finally:
        os.seteuid(user)
        os.close(fd)
        (tmp_path / "a").chmod(0o700)


async def read(root: Path, *paths: str) -> dict[str, bytes | None]:
    fd = os.open(root, OPEN_FOLDER)
    try:
        found = scan(fd, Ignore(())).found
        return dict(await hash_files(fd, [(path, found[path]) for path in paths]))
    finally:
        os.close(fd)


async def test_blocks_of_files_of_every_size(tmp_path: Path) -> None:
    sizes = [0, 1, MIN_BLOCK - 1, MIN_BLOCK, MIN_BLOCK + 1, 70 * 1024 * 1024 + 3]
    for number, size in enumerate(sizes):
        (tmp_path / str(number)).write_bytes(os.urandom(size))
    digests = await read(tmp_path, *(str(number) for number in range(len(sizes))))
    for number, size in enumerate(sizes):
        content = (tmp_path / str(number)).read_bytes()
        step = 512 * 1024 if size > MIN_BLOCK * 512 else 256 * 1024 if size > MIN_BLOCK * 256 else MIN_BLOCK
        expected = [hashlib.sha256(content[at : at + step]).digest() for at in range(0, size, step)]
        assert len(expected) == block_count(size)
        assert digests[str(number)] == b"".join(expected)


async def test_a_file_that_changed_since_it_was_found_has_no_content(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"1", "b": b"1", "c": b"1", "d/e": b"1"})
    fd = os.open(tmp_path, OPEN_FOLDER)
    try:
        found = scan(fd, Ignore(())).found
        (tmp_path / "a").write_bytes(b"22")
        (tmp_path / "b").unlink()
        (tmp_path / "b").symlink_to("/etc/hostname")
        (tmp_path / "c").unlink()
        os.mkfifo(tmp_path / "c")
        (tmp_path / "d").rename(tmp_path / "f")
        (tmp_path / "d").symlink_to("f")
        digests = await hash_files(fd, [(path, found[path]) for path in ("a", "b", "c", "d/e")])
    finally:
        os.close(fd)
    assert digests == {"a": None, "b": None, "c": None, "d/e": None}


@pytest.mark.parametrize("size", [1000, 3 * MIN_BLOCK])
async def test_a_file_that_cannot_be_read_is_an_error_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    write_tree(tmp_path, {f"d/{number}": bytes([number]) * size for number in range(3)})

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        patched.setattr(os, "preadv", fail)
        with pytest.raises(OSError, match=r"Input/output error: 'd/[01]'") as caught:
            await read(tmp_path, "d/0", "d/1")
    assert caught.value.errno == errno.EIO


async def test_small_files_are_hashed_by_one_thread_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.scan.SLICE_FILES", 2)
    write_tree(tmp_path, {str(number): b"%d" % number for number in range(9)})
    at_work: list[int] = []
    together: set[int] = set()
    work = agent.scan._hash_job

    def watched(*given: Any) -> Any:
        at_work.append(threading.get_ident())
        together.add(len(at_work))
        try:
            return work(*given)
        finally:
            at_work.pop()

    monkeypatch.setattr("agent.scan._hash_job", watched)
    digests = await read(tmp_path, *map(str, range(9)))
    assert digests == {str(number): hashlib.sha256(b"%d" % number).digest() for number in range(9)}
    assert together == {1}


def test_fifty_thousand_files(tmp_path: Path) -> None:
    # In memory where that is possible: making so many files is what takes long on a disk.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as place:
        for folder in range(50):
            Path(place, f"d{folder}").mkdir()
            for number in range(1000):
                os.close(os.open(f"{place}/d{folder}/{number}", os.O_CREAT | os.O_WRONLY))
        assert len(walk(Path(place)).found) == 50_050


def test_a_tree_deeper_than_descriptors_are_held(tmp_path: Path) -> None:
    deep = "/".join("d" for _ in range(HELD * 3))
    write_tree(tmp_path, {f"{deep}/x": b"1"})
    before = len(os.listdir("/proc/self/fd"))
    assert f"{deep}/x" in walk(tmp_path).found
    assert len(os.listdir("/proc/self/fd")) == before


def test_held_directories_never_follow_symlinks(tmp_path: Path) -> None:
    write_tree(tmp_path, {"real/a/b": None, "file": b"", "link": "real"})
    fd = os.open(tmp_path, OPEN_FOLDER)
    try:
        with Folders(fd) as folders:
            assert os.fstat(folders.fd("real/a/b")).st_ino == (tmp_path / "real/a/b").stat().st_ino
            for path in ("link", "link/a", "file", "file/x"):
                with pytest.raises(PathRefused):
                    folders.fd(path)
            with pytest.raises(FileNotFoundError):
                folders.fd("real/none")
    finally:
        os.close(fd)


def test_a_link_that_becomes_a_directory_while_it_is_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "entry").symlink_to("somewhere")
    reading = os.readlink

    def swapped(*given: Any, **options: Any) -> Any:
        (tmp_path / "entry").unlink()
        (tmp_path / "entry").mkdir()
        return reading(*given, **options)

    monkeypatch.setattr(os, "readlink", swapped)
    fd = os.open(tmp_path, OPEN_FOLDER)
    try:
        with Folders(fd) as folders:
            found = look_at(folders, "entry")
    finally:
        os.close(fd)
    assert found is not None
    assert found.kind == "directory"


def test_a_change_within_one_tick_of_the_clock_does_not_count_as_settled() -> None:
    now = 1_700_000_000_123_456_789

    def at(ctime_ns: int) -> Found:
        return Found("file", 0o644, 1, 1, 1, 1, ctime_ns)

    assert settled(at(now - 25_000_000), now)
    assert not settled(at(now - 5_000_000), now)
    assert not settled(at(now + 1), now)
    assert not settled(at(1_699_999_999_000_000_000), now)
