"""Gives up what the agent does not need of its rights, before it speaks to anybody.

All of this is of one thread and of those that it starts: so it comes before any other is there.
"""

import os
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent import libc
from agent.errors import SettingsError

KEPT: Final = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4}
"""What it takes to give files to others, to write where others may not, and to leave a directory its setgid
bit: the numbers are those of capabilities(7)."""


def become(name: str, own: Iterable[Path], *, needed: Iterable[Path] = ()) -> None:
    """Go on as the user `name`, for ever, with that user's groups; `own` are the agent's own directories.

    What of them root has made, as `join` does, becomes that user's. `needed` are files that it has to be able
    to read. Raises SettingsError where it is not, where there is no such user, or where who runs this is
    neither root nor that user.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(f"user: there is no user {name!r} on this host") from None
    if os.geteuid() == user.pw_uid:
        return
    if os.geteuid() != 0:
        raise SettingsError(
            f"user: only root can become {name}", hint=f"start the agent as root or as {name}, or remove it"
        )
    try:
        for directory in own:
            _hand_over(directory, user)
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        raise SettingsError(f"user: cannot become {name}: {error.strerror}") from None
    for path in needed:
        if not os.access(path, os.R_OK):
            raise SettingsError(
                f"user: {name} cannot read {path}", hint="install trueup where that user can: /opt/trueup"
            )


def _hand_over(directory: Path, user: pwd.struct_passwd) -> None:
    """Only what is root's and has no other name: no link that somebody put there gives a file away."""
    if not directory.is_dir():
        return
    for _, _, files, fd in os.fwalk(directory):
        if os.fstat(fd).st_uid == 0:
            os.fchown(fd, user.pw_uid, user.pw_gid)
        for name in files:
            found = os.lstat(name, dir_fd=fd)
            if found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, user.pw_uid, user.pw_gid, dir_fd=fd, follow_symlinks=False)


def give_up() -> None:
    """Keep what file work takes and nothing else, in programs that are started too: none gains rights.

    A system that does not know one of these calls leaves what it had; so there is nothing to fail.
    """
    libc.no_new_privileges()
    libc.keep_capabilities(KEPT.values())
