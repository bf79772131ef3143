"""Kills, full disks, errors and races: each path has its old or its new content, and the next task mends."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.index import STAGING
from agent.libc import sync_file_system
from agent.wire.messages import AnyMessage
from tests.agent.syncing import AFTER, BEFORE, Host, Tree, modes, read_tree, synchronise, write_tree
from tests.channelpair import MemoryChannel

OLD: Tree = BEFORE
NEW: Tree = {**AFTER, "taken": b"new here"}
FOREIGN: Tree = {"mine": b"mine", "taken": b"somebody else's", "fresh/mine": b"mine too", "fresh": None}


class Helper:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.killed_task"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )

    def run(self, base: Path, source: Path, kill_at: int, **options: object) -> tuple[bool, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"base": str(base), "source": str(source), "kill_at": kill_at, "options": options}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["killed"], answer["calls"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper()
    yield helper
    helper.close()


def sync(source: Path, host: Host, **options: Any) -> str:
    async def run() -> str:
        return (await synchronise(source, host, **options)).state

    return trio.run(run)


@pytest.mark.parametrize("then", ["again", "empty"])
def test_killed_at_every_change_of_the_file_system(helper: Helper, tmp_path: Path, then: str) -> None:
    """For each N, killed at the N-th change. Then either the same task again, which must complete; or an
    empty tree, which must remove all that was placed and nothing else."""
    old = write_tree(tmp_path / "old", OLD)
    new = write_tree(tmp_path / "new", NEW)
    empty = tmp_path / "empty"
    empty.mkdir()
    kills = 0
    for number in range(1, 400):
        host = Host(tmp_path / f"host{number}")
        assert sync(old, host) == "SUCCESS"
        write_tree(host.target, FOREIGN)
        killed, _ = helper.run(host.base, new, number)
        if not killed:
            break
        kills += 1
        found = read_tree(host.target)
        for path, content in found.items():
            if not path.startswith(STAGING):
                allowed = [tree[path] for tree in (OLD, NEW, FOREIGN) if path in tree]
                assert content in allowed or content is None, (number, path)
        assert found["mine"] == b"mine"
        assert found["fresh/mine"] == b"mine too"
        assert {"changed", "big", "link", "taken"} <= found.keys(), number
        if then == "again":
            host.allow(commands={"note": ("/bin/sh", "-c", "echo x >> ../ran")})
            assert sync(new, host, after=("note",)) == "SUCCESS"
            assert read_tree(host.target) == read_tree(new) | {"mine": b"mine", "fresh/mine": b"mine too"}
            assert (host.base / "srv/ran").exists(), number
        else:
            assert sync(empty, host, allow_empty=True) == "SUCCESS"
            left = read_tree(host.target)
            assert left.pop("taken", b"somebody else's") == b"somebody else's", number
            assert left == {"mine": b"mine", "fresh/mine": b"mine too", "fresh": None}, number
        shutil.rmtree(host.base)
    assert kills > 30


# --- races ---------------------------------------------------------------------------------------


def test_a_parent_swapped_for_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    """Threat 33: somebody with rights in the target swaps directories for symlinks while we write."""
    outside = write_tree(tmp_path / "outside", {f"f{number}": b"theirs" for number in range(40)})
    outside_before = read_tree(outside)
    host = Host(tmp_path / "host")
    trees = [
        write_tree(
            tmp_path / f"source{turn}",
            {f"d/f{number}": f"{turn} {number}".encode() for number in range(40)} | {"d/sub/x": b"%d" % turn},
        )
        for turn in range(2)
    ]
    assert sync(trees[0], host) == "SUCCESS"
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        folder, aside = host.target / "d", host.target / "aside"
        while not stop.is_set():
            try:
                folder.rename(aside)
                folder.symlink_to(outside)
                folder.unlink()
                aside.rename(folder)
            except OSError:
                # A task took something away or put it back: start over from whatever there is.
                if folder.is_symlink():
                    folder.unlink()
            swaps += 1

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        states = {sync(trees[turn % 2], host, on_local_edit="overwrite") for turn in range(40)}
    finally:
        stop.set()
        racer.join()
    assert swaps > 100
    assert states
    assert read_tree(outside) == outside_before
    for path in (host.target / "d", host.target / "aside"):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(host.target)
    assert sync(trees[0], host) == "SUCCESS"
    assert read_tree(host.target) == read_tree(trees[0])


@pytest.mark.parametrize(
    ("policy", "expected"), [("overwrite", b"new"), ("keep", b"late"), ("backup", b"new")]
)
async def test_an_edit_while_the_task_runs_is_a_local_edit(
    tmp_path: Path, policy: str, expected: bytes
) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"old"})
    await synchronise(source, host)
    (source / "a").write_bytes(b"new")

    def edit_when_blocks_come(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if payload is not None:
                (host.target / "a").write_bytes(b"late")
            return [(message, payload)]

        primary.alter = alter

    outcome = await synchronise(source, host, on_local_edit=policy, prepare=edit_when_blocks_come)
    assert outcome.state == "SUCCESS"
    assert (host.target / "a").read_bytes() == expected
    others = [path.read_bytes() for path in host.target.iterdir() if path.name != "a"]
    assert others == ([b"late"] if policy == "backup" else [])
    again = await synchronise(source, host, on_local_edit=policy)
    assert again.from_agent.messages == ["TaskReport"]


async def test_two_tasks_on_one_target_take_turns(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    sources = [write_tree(tmp_path / f"s{n}", {"a": b"%d" % n, f"b{n}": b"x"}) for n in range(2)]
    host.target.mkdir()
    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(synchronise, source, host)
    assert read_tree(host.target) in [read_tree(source) for source in sources]


async def test_a_target_that_stays_busy_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.target.LOCK_DEADLINE", 0.2)
    host = Host(tmp_path / "host")
    host.target.mkdir()
    fd = os.open(host.target, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    outcome = await synchronise(write_tree(tmp_path / "s", {"a": b"1"}), host)
    os.close(fd)
    assert outcome.state == "FAILED TargetBusy"


async def test_a_cancelled_task_leaves_no_descriptor_and_what_it_staged_alone(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"1", "big": os.urandom(3_000_000)})
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(1, 8):
        with trio.CancelScope() as scope:

            def cancel(
                primary: MemoryChannel,
                _agent: MemoryChannel,
                number: int = number,
                scope: trio.CancelScope = scope,
            ) -> None:
                def alter(
                    message: AnyMessage, payload: bytes | None
                ) -> list[tuple[AnyMessage, bytes | None]]:
                    if len(primary.sent.messages) == number - 1:
                        scope.cancel()
                    return [(message, payload)]

                primary.alter = alter

            await synchronise(source, host, prepare=cancel)
        if host.target.exists():
            assert {path.name for path in host.target.iterdir()} <= {STAGING, "a", "big"}
            assert all(
                path.read_bytes() == (source / path.name).read_bytes() for path in host.target.glob("[!.]*")
            )
        shutil.rmtree(host.target, ignore_errors=True)
    assert len(os.listdir("/proc/self/fd")) == descriptors


# --- errors of the system ------------------------------------------------------------------------


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
    old, new = write_tree(tmp_path / "old", OLD), write_tree(tmp_path / "new", NEW)
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
    assert outcome.report.message
    found = read_tree(host.target)
    assert {path: found[path] for path in ("changed", "big", "link", "gone/deep")} == {
        path: OLD[path] for path in ("changed", "big", "link", "gone/deep")
    }
    assert not (host.target / STAGING).exists()
    assert (await synchronise(new, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(new)


async def test_a_manifest_that_cannot_be_written_stops_the_task_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "old", OLD), host)
    new = write_tree(tmp_path / "new", NEW)
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


@contextmanager
def small_file_system(where: Path, options: str) -> Iterator[None]:
    where.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


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


def test_a_flush_of_something_that_is_no_file_system_fails() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(-1)
