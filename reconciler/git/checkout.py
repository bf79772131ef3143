"""Work trees of one commit each, for builds, deploys and syncs: made from a mirror, removed when done.

A work tree has hard links to the mirror's objects, so that it costs its files alone and its user needs no
way into the mirrors. It is otherwise a repository of its own: `git describe` works in it, and its `origin`
is the real remote. Each one is locked by the process that uses it; what a killed process left can be told
by its lock being free.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import GitRefused, UnknownRevision
from reconciler.git.failures import GitFailed, local_failure, on_disk
from reconciler.git.locks import locked, try_lock
from reconciler.git.mirror import Mirror
from reconciler.git.objects import TreeEntry
from reconciler.git.process import git_result
from reconciler.git.trees import check_tree
from reconciler.git.urls import shown

_LOCK: Final = ".lock"
_PREFIX: Final = "tree-"
_LOCK_WAIT: Final = 60.0


@asynccontextmanager
async def checkout(mirror: Mirror, commit: str, *, under: Path) -> AsyncIterator[Path]:
    """A directory below `under` that holds the files of `commit`, removed at exit, also on cancellation.

    No hook, filter, LFS download or submodule takes part; links are placed as links. Two work trees of one
    commit are independent. Raises UnknownRevision, GitRefused for a tree that cannot be placed (before
    anything is), GitUnavailable, GitFailed.
    """
    await _placeable(mirror, commit)
    path, descriptor = await _reserve(under)
    try:
        await mirror.mended(lambda: _place(mirror, commit, path))
        yield path
    finally:
        # What cannot be removed now, since something still writes there, is left to the next sweep.
        with trio.CancelScope(shield=True), suppress(OSError):
            await trio.to_thread.run_sync(_remove, path)
        os.close(descriptor)


async def may_switch(mirror: Mirror, before: str, commit: str) -> bool:
    """Whether a work tree of `before` may be made one of `commit`: not where other attributes may have git
    place the same file otherwise. Raises as `checkout`."""
    now = await _placeable(mirror, commit)
    try:
        return _attributes(now) == _attributes(await mirror.tree(before))
    except UnknownRevision:
        return False


async def switch(mirror: Mirror, path: Path, commit: str) -> None:
    """Make the work tree at `path`, a `checkout` of another commit, one of `commit`, as if made so.

    Files that both have the same are left alone, inode and times included, so that whoever has read them
    knows them still; other contents, and what else lies there, go. `may_switch` has to be asked before.
    Raises as `checkout`; the work tree is of no use then.
    """
    fresh, descriptor = await _reserve(path.parent)
    try:
        await _clone(mirror, fresh)
        with on_disk(path):
            await trio.to_thread.run_sync(_take_over, fresh / ".git", path / ".git")
        await _check_out(mirror, commit, path)
        # What is no file of the commit, in its own repositories and among what it ignores as well.
        await _git(mirror, ["clean", "-qffdx"], git_dir=path / ".git", cwd=path)
    finally:
        with trio.CancelScope(shield=True), suppress(OSError):
            await trio.to_thread.run_sync(_remove, fresh)
        os.close(descriptor)


async def _placeable(mirror: Mirror, commit: str) -> tuple[TreeEntry, ...]:
    """The files of a commit, all of which may be placed on a disk. Raises as `checkout`."""
    tree = await mirror.tree(commit)
    try:
        check_tree(tree)
    except GitRefused as error:
        raise GitRefused(f"{shown(mirror.url)}: {error.message}", hint=error.hint) from None
    return tree


def _attributes(tree: Iterable[TreeEntry]) -> list[TreeEntry]:
    return [entry for entry in tree if entry.path.rpartition("/")[2] == ".gitattributes"]


def _take_over(fresh: Path, git_dir: Path) -> None:
    """Puts a new `.git` in the place of one, of which git keeps what it knows of the files."""
    (git_dir / "index").rename(fresh / "index")
    _remove(git_dir)
    fresh.rename(git_dir)


async def sweep(under: Path) -> None:
    """Remove the work trees of processes that are gone; those in use by anybody are left alone.

    Raises GitFailed when one cannot be removed, after the others were.
    """
    if not await trio.to_thread.run_sync(under.is_dir):
        return
    async with locked(under / _LOCK, wait=_LOCK_WAIT):
        with on_disk(under):
            claimed = await trio.to_thread.run_sync(_claim_unused, under)
    kept: list[str] = []
    with ExitStack() as locks:
        for _, descriptor in claimed:
            locks.callback(os.close, descriptor)
        for path, _ in claimed:
            try:
                await trio.to_thread.run_sync(_remove, path)
            except OSError as error:
                kept.append(f"{path}: {error.strerror}")
    if kept:
        raise GitFailed(f"cannot remove the old work tree {kept[0]}", hint="remove it by hand")


def _claim_unused(under: Path) -> list[tuple[Path, int]]:
    """The work trees that nobody has locked, locked by us now."""
    claimed = []
    for path in sorted(under.glob(f"{_PREFIX}*")):
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            continue  # its user removed it meanwhile
        if try_lock(descriptor):
            claimed.append((path, descriptor))
        else:
            os.close(descriptor)
    return claimed


async def _reserve(under: Path) -> tuple[Path, int]:
    """A new empty directory below `under`, and its locked descriptor."""
    with on_disk(under):
        under = await trio.to_thread.run_sync(_directory, under)
    # The lock of the parent keeps a sweep from finding the directory before it is locked.
    async with locked(under / _LOCK, wait=_LOCK_WAIT):
        with on_disk(under):
            return _make_locked(under)


def _make_locked(under: Path) -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=under))
    descriptor = _open(path)
    try_lock(descriptor)
    return path, descriptor


def _directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.absolute()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


async def _place(mirror: Mirror, commit: str, path: Path) -> None:
    """Fill `path`, anew when called again. Raises MirrorBroken when the mirror cannot give the files."""
    with on_disk(path):
        await trio.to_thread.run_sync(_clear, path)
    await _clone(mirror, path)
    await _check_out(mirror, commit, path)


async def _clone(mirror: Mirror, path: Path) -> None:
    """Make `path`, an empty directory, a repository without files."""
    # All of this reads the mirror alone, so `file` is the one transport it needs.
    await _git(
        mirror, ["clone", "-q", "--local", "--no-checkout", "--template=", "--", str(mirror.path), str(path)]
    )
    await _git(mirror, ["remote", "set-url", "origin", mirror.url], git_dir=path / ".git", cwd=path)


async def _check_out(mirror: Mirror, commit: str, path: Path) -> None:
    args = ["checkout", "-q", "--force", "--detach", commit]
    await _git(mirror, args, git_dir=path / ".git", cwd=path)


async def _git(
    mirror: Mirror, args: list[str], *, git_dir: Path | None = None, cwd: Path | None = None
) -> None:
    where = f"work tree of {mirror.url}"
    result = await git_result(
        args,
        git_dir=git_dir,
        cwd=cwd,
        deadline=mirror.options.transfer_deadline,
        allow_local=True,
        where=where,
    )
    if result.code:
        raise local_failure(result.code, result.stderr, where)


def _clear(path: Path) -> None:
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            _remove(child)
        else:
            child.unlink()


def _remove(path: Path) -> None:
    """Remove a tree, also where a build took away its own permission to."""
    for directory, names, _ in os.walk(path):
        for name in names:
            below = Path(directory, name)
            mode = below.lstat().st_mode
            if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                below.chmod(0o700)
    path.chmod(0o700)
    shutil.rmtree(path)
