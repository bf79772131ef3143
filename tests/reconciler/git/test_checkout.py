"""Work trees: complete, independent, removed whatever happens, and never swept from under a live process."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from reconciler.errors import UnknownRevision
from reconciler.git.checkout import checkout, may_switch, sweep, switch
from reconciler.git.failures import GitFailed
from reconciler.git.mirror import Mirror
from tests.gitrepo import Content, Executable, GitRepo, Link, Submodule, git

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


# --- from one commit to another ----------------------------------------------------------------------


def inodes(root: Path) -> dict[str, tuple[int, int]]:
    """Of each file outside `.git`, what tells whether it is the very same."""
    files = (path for path in root.rglob("*") if ".git" not in path.relative_to(root).parts)
    return {
        str(path.relative_to(root)): (status.st_ino, status.st_mtime_ns)
        for path in files
        if (status := path.lstat()) and not stat.S_ISDIR(status.st_mode)
    }


def shown(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """What a work tree holds, modes included."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if name.parts[0] != ".git":
            content = str(path.readlink()) if path.is_symlink() else path.is_file() and path.read_bytes()
            found[str(name)] = stat.filemode(path.lstat().st_mode), content or b""
    return found


BEFORE: dict[str, Content] = {
    "same": "1",
    "deep/down/same": "2",
    "changed": "old",
    "run": "#!/bin/sh\n",
    "gone/file": "3",
    "link": Link("same"),
    "file then folder": "4",
    "folder then file/x": "5",
    "module": Submodule("1" * 40),
    ".gitignore": "*.log\n",
}
CHANGE: dict[str, Content] = {
    "changed": "newer",
    "run": Executable("#!/bin/sh\n"),
    "gone/file": None,
    "link": Link("deep"),
    "file then folder": None,
    "file then folder/y": "6",
    "folder then file/x": None,
    "folder then file": "7",
    "new/one": "8",
    ".gitignore": "*.tmp\n",
}


async def test_a_work_tree_that_is_switched_is_as_one_of_its_own(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    first = remote.commit(BEFORE)
    await mirror.refresh()
    async with checkout(mirror, first, under=under) as path:
        before = inodes(path)
        second = remote.commit(CHANGE)
        remote.tag("v2.0.0", second)
        await mirror.refresh()
        assert await may_switch(mirror, first, second)
        await switch(mirror, path, second)
        async with checkout(mirror, second, under=under) as own:
            assert shown(path) == shown(own)
            assert git("describe", "--tags", cwd=path) == git("describe", "--tags", cwd=own) == "v2.0.0"
        assert git("status", "--porcelain", "--ignored", cwd=path) == ""
        assert git("rev-parse", "HEAD", cwd=path) == second
        assert git("remote", "get-url", "origin", cwd=path) == remote.url
        now = inodes(path)
        assert {name for name in before if now.get(name) == before[name]} == {"same", "deep/down/same"}
        await switch(mirror, path, first)
        async with checkout(mirror, first, under=under) as own:
            assert shown(path) == shown(own)
        assert trees(under) == [path]
    assert trees(under) == []


async def test_what_was_done_to_a_work_tree_does_not_outlive_a_switch(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    first = remote.commit(BEFORE)
    second = remote.commit({"changed": "newer"})
    await mirror.refresh()
    async with checkout(mirror, first, under=under) as path:
        (path / "same").write_text("edited")
        (path / "changed").unlink()
        (path / "deep/x.log").write_text("ignored")
        (path / "deep/y").write_text("untracked")
        git("init", "-q", "inner", cwd=path)
        git("add", "deep/y", cwd=path)
        (path / ".git/hooks").mkdir()
        hook = path / ".git/hooks/post-checkout"
        hook.write_text("#!/bin/sh\ntouch hooked\n")
        hook.chmod(0o755)
        git("config", "core.autocrlf", "true", cwd=path)
        await switch(mirror, path, second)
        async with checkout(mirror, second, under=under) as own:
            assert shown(path) == shown(own)
        assert git("status", "--porcelain", "--ignored", cwd=path) == ""


async def test_other_attributes_take_a_work_tree_of_their_own(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"deep/a": "1\n", "deep/.gitattributes": "a text eol=lf\n"})
    second = remote.commit({"b": "2"})
    third = remote.commit({"deep/.gitattributes": "a text eol=crlf\n"})
    await mirror.refresh()
    assert await may_switch(mirror, first, second)
    assert not await may_switch(mirror, second, third)
    assert not await may_switch(mirror, "f" * 40, third)
    with pytest.raises(UnknownRevision):
        await may_switch(mirror, third, "f" * 40)


async def test_a_switch_that_fails_leaves_nothing_beside(
    remote: GitRepo, mirror: Mirror, under: Path
) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    await mirror.refresh()
    async with checkout(mirror, first, under=under) as path:
        (path / ".git/index").unlink()
        with pytest.raises(GitFailed):
            await switch(mirror, path, second)
        assert trees(under) == [path]
    assert trees(under) == []
