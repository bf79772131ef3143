"""Full disks, errors, missing rights: each path has its old or its new content, and the next task mends."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from agent.blocks import MIN_BLOCK
from agent.index import STAGING
from agent.libc import sync_file_system
from tests.agent.syncing import AFTER, BEFORE, Host, Tree, modes, read_tree, synchronise, write_tree
from tests.mounting import small_file_system


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "DiskFull"),
        (errno.EDQUOT, "DiskFull"),
        (errno.EIO, "InputOutputError"),
        (errno.EROFS, "ReadOnlyFileSystem"),
        (errno.EACCES, "PermissionDenied"),
        (errno.EMFILE, "TooManyOpenFiles"),
        (errno.EXDEV, "CrossesFileSystems"),
        (errno.EINVAL, "FileSystemError"),
        (errno.ENOENT, "TargetChanged"),
        (errno.ENOTDIR, "TargetChanged"),
        (errno.ENOTEMPTY, "TargetChanged"),
    ],
)
@pytest.mark.parametrize("function", ["pwrite", "rename", "mkdir", "utime"])
async def test_an_error_while_writing_is_reported_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, reason: str
) -> None:
    host = Host(tmp_path / "host")
    old, new = write_tree(tmp_path / "old", BEFORE), write_tree(tmp_path / "new", AFTER)
    await synchronise(old, host)
    original = getattr(os, function)

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    # Only what concerns the target fails; the manifest is elsewhere, and its own failure is another test.
    def fail_in_target(*arguments: object, **options: object) -> object:
        if options or isinstance(arguments[0], int):
            fail()
        return original(*arguments, **options)

    monkeypatch.setattr(os, function, fail_in_target)
    outcome = await synchronise(new, host)
    monkeypatch.undo()
    assert outcome.state == f"FAILED {reason}"
    assert outcome.report.message.split(":")[0] in {repr(path) for path in (*AFTER, "fresh", STAGING)}
    found = read_tree(host.target)
    assert {path: found[path] for path in ("changed", "big", "link", "gone/deep")} == {
        path: BEFORE[path] for path in ("changed", "big", "link", "gone/deep")
    }
    assert not (host.target / STAGING).exists()
    assert (await synchronise(new, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(new)


async def test_a_manifest_that_cannot_be_written_stops_the_task_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "old", BEFORE), host)
    new = write_tree(tmp_path / "new", AFTER)
    before = read_tree(host.base)

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the state directory")

    monkeypatch.setattr(os, "fsync", fail)
    outcome = await synchronise(new, host, durability="commit")
    monkeypatch.undo()
    assert outcome.state == "FAILED DiskFull"
    after = read_tree(host.base)
    assert {path: after[path] for path in before} == before
    assert {path for path in after.keys() - before.keys() if not path.endswith(".new")} == set()


async def test_a_damaged_manifest_is_never_taken_for_none(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"1"})
    await synchronise(source, host)
    (path,) = (host.state / "targets").glob("*.manifest")
    for content in (b"", b"damaged", path.read_bytes()[:-3], b"\x81\xa7version\x63"):
        path.write_bytes(content)
        assert (await synchronise(source, host)).state == "FAILED ManifestUnreadable"
    path.unlink()
    assert (await synchronise(source, host)).state == "SUCCESS"


async def test_a_full_disk(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "host/srv", "size=2m,nr_inodes=40"):
        host = Host(tmp_path / "host")
        old = write_tree(tmp_path / "old", {f"{number:02}": b"old" for number in range(10)})
        assert (await synchronise(old, host)).state == "SUCCESS"

        # Known beforehand: nothing is even started.
        large = write_tree(tmp_path / "large", {"00": os.urandom(3_000_000)})
        outcome = await synchronise(large, host)
        assert outcome.state == "FAILED DiskFull"
        assert "3000000 bytes" in outcome.report.message
        assert outcome.from_agent.count("BlockRequest") == 0
        assert read_tree(host.target) == read_tree(old)

        # Found out on the way, as the file system runs out of inodes.
        many = write_tree(tmp_path / "many", {f"{number:02}": b"new" for number in range(60)})
        outcome = await synchronise(many, host)
        assert outcome.state == "FAILED DiskFull"
        found = read_tree(host.target)
        assert {path: found[path] for path in read_tree(old)} == read_tree(old)
        assert not (host.target / STAGING).exists()

        remount = ["mount", "-o", "remount,nr_inodes=400", str(tmp_path / "host/srv")]
        await trio.run_process(remount)
        assert (await synchronise(many, host)).state == "SUCCESS"
        assert read_tree(host.target) == read_tree(many)


async def test_a_file_system_mounted_inside_the_target(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "host/srv/app/data", "size=1m"):
        host = Host(tmp_path / "host")
        outcome = await synchronise(write_tree(tmp_path / "s", {"data/x": b"1"}), host)
        assert outcome.state == "FAILED CrossesFileSystems"


async def test_an_error_names_the_file_of_the_target_that_it_is_about(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    before: Tree = {
        "d/one": b"1",
        "d/large": b"o" * (MIN_BLOCK + 10),
        "d/link": "one",
        "d/gone": b"1",
        "m": b"1",
    }
    after: Tree = {"d/one": b"2", "d/large": b"n" * (MIN_BLOCK + 10), "d/link": "two", "m": b"1"}
    old, new = write_tree(tmp_path / "old", before), write_tree(tmp_path / "new", after)
    os.utime(old / "m", (1, 1))
    os.utime(new / "m", (2, 2))
    for name in ("d/one", "d/large", "m", "d/gone"):
        assert (await synchronise(old, host)).state == "SUCCESS"  # another file may be new after a failure
        with immutable(host.target / name):
            outcome = await synchronise(new, host)
        assert outcome.state == "FAILED PermissionDenied"
        assert outcome.report.message.startswith(f"{name!r}: Operation not permitted; ")
    assert (await synchronise(new, host)).state == "SUCCESS"
    with immutable(host.target / "d"):
        outcome = await synchronise(write_tree(new, {"d/fresh": b"3"}), host)
    assert outcome.state == "FAILED PermissionDenied"
    assert outcome.report.message.startswith("'d/fresh': Operation not permitted; ")
    assert (await synchronise(new, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(new)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """What not even root may change."""
    set_so = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
    if set_so.returncode:
        pytest.skip(f"nothing can be made immutable here: {set_so.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A directory that an ordinary user owns, and that user's rights for the time being."""
    base = Path(tempfile.mkdtemp(dir="/var/tmp"))  # where every user may go
    user = os.geteuid()
    try:
        if user == 0:
            base.chmod(0o755)
            os.chown(base, 65534, -1)
            os.seteuid(65534)
        yield base
    finally:
        os.seteuid(user)
        shutil.rmtree(base)


async def test_directories_that_forbid_writing_are_opened_and_closed_again() -> None:
    with as_nobody() as base:
        source = write_tree(base / "source", {"d/a": b"1", "d/b": b"2"})
        host = Host(base / "host")
        (source / "d").chmod(0o555)
        assert (await synchronise(source, host)).state == "SUCCESS"
        (source / "d").chmod(0o755)
        (source / "d/a").unlink()
        (source / "d/b").write_bytes(b"3")
        (source / "d").chmod(0o555)
        assert (await synchronise(source, host)).state == "SUCCESS"
        assert read_tree(host.target) == {"d": None, "d/b": b"3"}
        assert modes(host.target)["d"] == 0o555
        for folder in (source / "d", host.target / "d"):
            folder.chmod(0o755)


async def test_no_right_to_write() -> None:
    with as_nobody() as base:
        source = write_tree(base / "source", {"a": b"1"})
        host = Host(base / "host")
        (base / "host/srv").chmod(0o555)
        outcome = await synchronise(source, host)
        assert outcome.state == "FAILED PermissionDenied"
        assert "owner and mode" in outcome.report.message
        (base / "host/srv").chmod(0o755)
        assert (await synchronise(source, host)).state == "SUCCESS"


def test_without_proc_nobody_is_blamed_for_what_is_in_the_target(tmp_path: Path) -> None:
    write_tree(tmp_path / "target", {"file": b""})
    command = [sys.executable, "-m", "tests.agent.without_proc", str(tmp_path / "target"), "file"]
    alone = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh"]
    if os.geteuid() or shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("no process can be had that has no /proc")
    done = subprocess.run([*alone, *command], capture_output=True, text=True, check=True)
    for code, line in json.loads(done.stdout):
        assert code == "FileSystemError"
        assert re.fullmatch("'/proc/self/fd/[0-9]+': No such file or directory", line)
    assert read_tree(tmp_path / "target") == {"file": b""}


def test_a_flush_of_something_that_is_no_file_system_fails() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(-1)
