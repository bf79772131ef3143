"""Opens a task's target: below a root that this host allows, without following a symlink."""

import errno
import fcntl
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from agent.errors import PathRefused
from agent.failures import TaskFailed
from agent.folders import OPEN_FOLDER
from agent.libc import birth_time
from agent.manifest import Identity

LOCK_DEADLINE = 15.0
"""Seconds to wait for another task on the same target, such as one that was just called off."""

_LOCK_INTERVAL = 0.05

STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT)
"""What `rmdir` says of a directory that has to stay, or is gone."""


@dataclass(frozen=True, slots=True)
class Target:
    """An open target directory. Whoever opened it closes `fd`."""

    path: str
    fd: int
    identity: Identity
    """Device, inode and time of birth of the directory, which change when it is replaced."""
    made: int = 0
    """How many directories were made for it when it was opened: its own and those right above it."""

    async def lock(self, *, shared: bool) -> None:
        """Keeps other tasks off this target for as long as its descriptor is open.

        Raises TaskFailed when another one keeps it for LOCK_DEADLINE.
        """
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with trio.move_on_after(LOCK_DEADLINE):
            while True:
                try:
                    fcntl.flock(self.fd, how | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    await trio.sleep(_LOCK_INTERVAL)
        raise TaskFailed(
            "TargetBusy", f"another task is at work in {self.path!r}", hint="it is tried again later"
        )

    def is_empty(self) -> bool:
        """Whether there is nothing at all in it, not even what a task has left in staging; blocks."""
        with os.scandir(self.fd) as items:
            return next(items, None) is None

    def close(self) -> None:
        os.close(self.fd)


def check_target(path: str, roots: Sequence[str]) -> tuple[str, list[str]]:
    """The allowed root above `path`, and the names that lead from it to the target. Pure.

    Raises PathRefused unless `path` is absolute, canonical and at or below one of `roots`.
    """
    names = path.split("/")
    if (
        not path.startswith("/")
        or path == "/"
        or "\0" in path
        or any(name in ("", ".", "..") for name in names[1:])
        or len(os.fsencode(path)) > 4096
    ):
        raise PathRefused(f"target path {path!r} is not an absolute path in its plain form")
    matching = [root for root in roots if path == root.rstrip("/") or path.startswith(root.rstrip("/") + "/")]
    if not matching:
        raise PathRefused(
            f"target path {path!r} is outside what this host allows",
            hint=f"its roots are {', '.join(roots) or 'none'}; add one to agent.toml",
        )
    root = max(matching, key=len).rstrip("/")
    return root or "/", [name for name in path[len(root) :].split("/") if name]


def private_inside(path: str, roots: Sequence[str], private: Iterable[str]) -> frozenset[str]:
    """Those of the `private` paths that lie inside the target `path`, relative to it; blocks.

    Raises PathRefused where the target is one of them or lies in one. Real paths are compared: a root
    may be reached through symlinks, while below it `open_target` follows none.
    """
    root, names = check_target(path, roots)
    here = os.path.join(os.path.realpath(root), *names)  # noqa: PTH118 - next to realpath, on text
    inside: set[str] = set()
    for own in map(os.path.realpath, private):
        if here == own or here.startswith(f"{own}/"):
            raise PathRefused(
                f"target path {path!r} is where this agent keeps its own configuration, keys and records",
                hint="name another directory",
            )
        if own.startswith(f"{here}/"):
            inside.add(own[len(here) + 1 :])
    return frozenset(inside)


def open_target(path: str, roots: Sequence[str], *, create: bool) -> Target | None:
    """The target directory, opened one component at a time from its root; blocks.

    A root is the host's own word and may be reached through symlinks; nothing below it may. Missing
    directories below the root are made with `create`; without it, None says that there is none.
    Raises PathRefused where something else stands in the way, TaskFailed where the root is missing.
    """
    root, names = check_target(path, roots)
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise TaskFailed(
            "RootMissing", f"the allowed root {root!r} does not exist", hint="create or mount it"
        ) from error
    except NotADirectoryError as error:
        raise PathRefused(f"the allowed root {root!r} is not a directory") from error
    try:
        made = 0
        for name in names:
            below = _enter(fd, name, path, create=create)
            if below is None:
                return None
            os.close(fd)
            fd, is_new = below
            made = made + 1 if is_new else 0
        status = os.fstat(fd)
        target = Target(path, fd, (status.st_dev, status.st_ino, birth_time(fd)), made)
        fd = -1
        return target
    finally:
        if fd >= 0:
            os.close(fd)


def _enter(fd: int, name: str, path: str, *, create: bool) -> tuple[int, bool] | None:
    """The directory of that name, and whether it was made for this."""
    made = False
    while True:
        try:
            return os.open(name, OPEN_FOLDER, dir_fd=fd), made
        except FileNotFoundError:
            if not create:
                return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PathRefused(
                    f"{name!r} in target path {path!r} is a symlink or no directory, and is not followed",
                    hint="name the real directory, below an allowed root",
                ) from error
            raise
        try:
            os.mkdir(name, 0o755, dir_fd=fd)
            made = True
        except FileExistsError:
            continue


def remove_made_root(target: Target, roots: Sequence[str]) -> bool:
    """Removes a target's own directory, if nothing is in it and it still has its place; blocks. Whether it is
    gone."""
    if not check_target(target.path, roots)[1]:
        return False
    return _remove_below(target.path, roots, target.identity)


def undo_making(target: Target, roots: Sequence[str]) -> bool:
    """Removes what was made when the target was opened, as far as nothing is in it; blocks. Whether the
    target's own directory is gone."""
    if not target.made or not remove_made_root(target, roots):
        return False
    path = target.path
    for _ in range(target.made - 1):
        path = posixpath.dirname(path)
        if not _remove_below(path, roots):
            break
    return True


def _remove_below(path: str, roots: Sequence[str], identity: Identity | None = None) -> bool:
    above = open_target(posixpath.dirname(path), roots, create=False)
    if above is None:
        return False
    name = posixpath.basename(path)
    try:
        if identity is not None:
            there = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            if (there.st_dev, there.st_ino) != identity[:2]:
                return False
        os.rmdir(name, dir_fd=above.fd)
        return True
    except OSError as error:
        if error.errno not in STAYS:
            raise
        return False
    finally:
        above.close()
