"""Work trees of one commit each, for builds and deploys: made from a mirror, removed when done.

A work tree borrows the mirror's objects, so that it costs its files alone, and is otherwise a repository
of its own: `git describe` works in it, and its `origin` is the real remote. Each one is locked by the
process that uses it; what a killed process left can be told by its lock being free.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from reconciler.git.locks import locked, try_lock
from reconciler.git.mirror import Mirror
from reconciler.git.process import run_git
from reconciler.git.trees import check_tree

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
    check_tree(await mirror.tree(commit))
    path, descriptor = await _reserve(under)
    try:
        await _place(mirror, commit, path)
        yield path
    finally:
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(_remove, path)
            finally:
                os.close(descriptor)


async def sweep(under: Path) -> None:
    """Remove the work trees of processes that are gone; those in use by anybody are left alone."""
    if not under.is_dir():
        return
    claimed: list[tuple[Path, int]] = []
    async with locked(under / _LOCK, wait=_LOCK_WAIT):
        for path in sorted(under.glob(f"{_PREFIX}*")):
            descriptor = _open(path)
            if try_lock(descriptor):
                claimed.append((path, descriptor))
            else:
                os.close(descriptor)
    for path, descriptor in claimed:
        try:
            await trio.to_thread.run_sync(_remove, path)
        finally:
            os.close(descriptor)


async def _reserve(under: Path) -> tuple[Path, int]:
    """A new empty directory below `under`, and its locked descriptor."""
    under.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The lock of the parent keeps a sweep from finding the directory before it is locked.
    async with locked(under / _LOCK, wait=_LOCK_WAIT):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=under))
        descriptor = _open(path)
        try_lock(descriptor)
        return path, descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


async def _place(mirror: Mirror, commit: str, path: Path) -> None:
    """Fill `path`; all git here reads the mirror alone, so `file` is the one transport it needs."""
    deadline = mirror.options.transfer_deadline
    where = f"work tree of {mirror.url}"
    clone = ["clone", "-q", "--shared", "--no-checkout", "--template=", "--", str(mirror.path), str(path)]
    await run_git(clone, deadline=deadline, allow_local=True, where=where)
    git_dir = path / ".git"
    await run_git(
        ["remote", "set-url", "origin", mirror.url], git_dir=git_dir, cwd=path, deadline=deadline, where=where
    )
    await run_git(
        ["checkout", "-q", "--force", "--detach", commit],
        git_dir=git_dir,
        cwd=path,
        deadline=deadline,
        where=where,
    )


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
