"""The account under which a repository's code runs when the primary is root."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import SettingsError


@dataclass(frozen=True, slots=True)
class BuildUser:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary groups, as the system's group database has them."""


def find_build_user(name: str | None) -> BuildUser | None:
    """The account to switch to; None: no switch is asked for, or we are that account already.

    Raises SettingsError where there is no such account, or we may not switch to it.
    """
    if name is None:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"TRUEUP_BUILD_USER: there is no user {name!r} on this host",
            hint=f"create it (`useradd --system {name}`) or name another",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise SettingsError(
            f"TRUEUP_BUILD_USER: only root can run tasks as {name!r}",
            hint="run trueup as root, or as that user without this setting",
        )
    groups = tuple(sorted({*os.getgrouplist(name, entry.pw_gid)} - {entry.pw_gid}))
    return BuildUser(name, entry.pw_uid, entry.pw_gid, groups)


def hand_over(tree: Path, user: BuildUser, *, state_dir: Path) -> None:
    """Make everything in `tree` the user's own, and see to it that the user can reach it.

    The directories from the primary's own `state_dir` down to the tree are opened for passing through, by
    the user's group alone; above it nothing is changed. Blocks. Symlinks are not followed. A file with
    several names is left alone: another of them may stand outside the tree, in a mirror's object store for
    example. Raises SettingsError.
    """
    for parent in reversed(tree.absolute().parents):
        status = parent.stat()
        if _may_enter(status, user):
            continue
        if not parent.is_relative_to(state_dir.absolute()) or not _open_for_group(parent, status, user):
            raise SettingsError(
                f"TRUEUP_BUILD_USER: {user.name} cannot enter {parent}, where its work tree is",
                hint=f"allow passing through with `chmod o+x {parent}`, or put TRUEUP_STATE_DIR elsewhere",
            )
    # Relative to held directories: code of an earlier run may own parts of the tree and could put a
    # symlink in the place of a directory while we walk.
    for _, names, files, directory in os.fwalk(tree):
        os.chown(directory, user.uid, user.gid)
        for name in [*names, *files]:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
                continue
            os.chown(name, user.uid, user.gid, dir_fd=directory, follow_symlinks=False)


def _may_enter(status: os.stat_result, user: BuildUser) -> bool:
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid or status.st_gid in user.groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _open_for_group(directory: Path, status: os.stat_result, user: BuildUser) -> bool:
    """Let the user's group pass through, if the directory is ours and no other group has rights there."""
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IRWXG:
        return False
    os.chown(directory, -1, user.gid)
    directory.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXGRP)
    return True
