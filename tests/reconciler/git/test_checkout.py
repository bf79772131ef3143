"""Work trees: complete, independent, removed whatever happens, and never swept from under a live process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from reconciler.errors import UnknownRevision
from reconciler.git.checkout import checkout, sweep
from reconciler.git.mirror import Mirror
from tests.gitrepo import Executable, GitRepo, Link, Submodule, git

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def under(tmp_path: Path) -> Path:
    return tmp_path / "state" / "trees"


def listed(under: Path) -> list[str]:
    return sorted(os.listdir(under)) if under.exists() else []


def trees(under: Path) -> list[Path]:
    return sorted(under.glob("tree-*"))


async def test_a_work_tree_is_whole_and_a_repository_of_its_own(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    first = remote.commit(
        {"a/b": b"\x00\r\n\xff", "run": Executable("#!/bin/sh\n"), "l": Link("a/b"), "s": Submodule("1" * 40)}
    )
    remote.tag("platform/v1.2.3", first)
    second = remote.commit({"a/c": "later"})
    await mirror.refresh()
    async with checkout(mirror, second, under=under) as path:
        assert trees(under) == [path]
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "a" / "b").read_bytes() == b"\x00\r\n\xff"
        assert (path / "a" / "c").read_text() == "later"
        assert os.access(path / "run", os.X_OK) and not os.access(path / "a" / "c", os.X_OK)
        assert (path / "l").readlink() == Path("a/b")
        assert list((path / "s").iterdir()) == []
        assert git("describe", "--tags", cwd=path) == f"platform/v1.2.3-1-g{second[:7]}"
        assert git("rev-parse", "HEAD", cwd=path) == second
        assert git("status", "--porcelain", cwd=path) == ""
        assert git("log", "--format=%H", cwd=path).split() == [second, first]
        assert git("remote", "get-url", "origin", cwd=path) == remote.url
        assert git("fetch", "origin", cwd=path) == ""
        assert list((path / ".git").glob("hooks/*")) == []
    assert trees(under) == []


async def test_two_work_trees_of_one_commit_are_independent(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    async with checkout(mirror, commit, under=under) as one:
        async with checkout(mirror, commit, under=under) as other:
            assert one != other
            (other / "a").write_text("changed")
            (other / "build").mkdir()
            git("commit", "-qam", "local", cwd=other)
            assert (one / "a").read_text() == "1"
            assert git("rev-parse", "HEAD", cwd=one) == commit
        assert (one / "a").read_text() == "1"
    assert (await mirror.refresh()).heads == {"main": commit}


async def test_many_at_once(remote: GitRepo, mirror: Mirror, under: Path) -> None:
    commits = [remote.commit({"a": f"{n}"}) for n in range(6)]
    await mirror.refresh()
    seen = []

    async def look(commit: str) -> None:
        async with checkout(mirror, commit, under=under) as path:
            seen.append((path / "a").read_text())
            await sweep(under)
            assert (path / "a").exists()

    async with trio.open_nursery() as nursery:
        for commit in commits:
            nursery.start_soon(look, commit)
    assert sorted(seen) == [f"{n}" for n in range(6)]
    assert trees(under) == []


async def test_it_is_removed_on_an_error_and_on_cancellation(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    commit = remote.commit({f"d{n}/a": "1" for n in range(200)})
    await mirror.refresh()
    with pytest.raises(KeyError):
        async with checkout(mirror, commit, under=under):
            raise KeyError
    assert trees(under) == []
    with trio.CancelScope() as inside:
        async with checkout(mirror, commit, under=under) as path:
            inside.cancel()
            await trio.lowlevel.checkpoint()
    assert trees(under) == [] and not path.exists()
    for checkpoints in range(0, 200, 20):  # also anywhere while it is being filled
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter_and_stay, mirror, commit, under)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert trees(under) == []


async def enter_and_stay(mirror: Mirror, commit: str, under: Path) -> None:
    async with checkout(mirror, commit, under=under):
        await trio.sleep_forever()


async def test_what_a_build_made_unwritable_is_removed_too(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    outside = under.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    async with checkout(mirror, commit, under=under) as path:
        (path / "locked" / "below").mkdir(parents=True)
        (path / "locked" / "below" / "file").write_text("x")
        (path / "out").symlink_to(outside)
        (path / "locked" / "below").chmod(0o500)
        (path / "locked").chmod(0)
    assert trees(under) == []
    assert (outside / "kept").read_text() == "kept"


async def test_an_unknown_commit_makes_nothing(remote: GitRepo, mirror: Mirror, under: Path) -> None:
    remote.commit({"a": "1"})
    await mirror.refresh()
    for revision in ("a" * 40, "main", "--help"):
        with pytest.raises(UnknownRevision):
            async with checkout(mirror, revision, under=under):
                raise AssertionError("placed")
    assert listed(under) == []


async def test_a_sweep_takes_what_a_killed_process_left_and_nothing_else(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    await sweep(under)  # there is nothing yet
    program = (
        "import trio\nfrom pathlib import Path\nfrom reconciler.git.checkout import checkout\n"
        "from reconciler.git.mirror import Mirror\n"
        "async def main():\n"
        f"    mirror = Mirror({mirror.url!r}, Path({str(mirror.path)!r}), allow_local=True)\n"
        f"    async with checkout(mirror, {commit!r}, under=Path({str(under)!r})) as path:\n"
        "        print(path, flush=True)\n        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", program]
    other = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=PROJECT)
    assert other.stdout is not None
    try:
        with trio.fail_after(60):
            line = b""
            while not line.endswith(b"\n"):
                line += await other.stdout.receive_some()
        theirs = Path(line.decode().strip())
        (under / "not-ours").mkdir()
        await sweep(under)
        assert (theirs / "a").read_text() == "1"
    finally:
        other.send_signal(signal.SIGKILL)
        await other.wait()
        await other.stdout.aclose()
    assert theirs in trees(under)
    async with checkout(mirror, commit, under=under) as ours:
        await sweep(under)
        assert trees(under) == [ours]
    assert listed(under) == [".lock", "not-ours"]
