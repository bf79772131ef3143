"""Changes owner, mode and time of what is there, without following a symlink or needing to read it."""

import os
import stat

from agent.folders import Folders
from agent.index import PERMISSIONS
from agent.owners import NOBODYS, Ids, give
from agent.scan import Found

LEFT_ALONE = -1
"""The time of a directory that is given none."""


def change(
    folders: Folders,
    path: str,
    mode: int | None,
    mtime_ns: int | None,
    ids: Ids = NOBODYS,
    found: Found | None = None,
) -> tuple[int | None, int]:
    """Gives a file or directory an owner, a mode and a time, where these are not None; blocks.

    The inode of a file and its time afterwards; None for anything else, and symlinks, FIFOs and the like
    are left alone. Only the inode that was `found` is given to anybody, and a file only as long as it has no
    other name: another one may be anybody's.
    """
    above, name = folders.locate(path)
    # O_PATH needs no permission to read; what it opened is changed through /proc, as fchmod
    # does not take such a descriptor.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        status = os.fstat(fd)
        is_file = stat.S_ISREG(status.st_mode)
        if not (is_file or stat.S_ISDIR(status.st_mode)):
            return None, 0
        itself = f"/proc/self/fd/{fd}"
        alone = found is not None and found.nlink == status.st_nlink == 1
        same = found is not None and (found.dev, found.ino) == (status.st_dev, status.st_ino)
        if ids != NOBODYS and same and (not is_file or alone):
            give(fd, ids, path, opened=False)  # before the mode, of which this may take bits away
            status = os.fstat(fd)
        if mode is not None and status.st_mode & PERMISSIONS != mode:
            # A directory's setgid and sticky bits are its host's own doing and stay.
            own_bits = 0 if is_file else status.st_mode & 0o7000
            os.chmod(itself, mode | own_bits)  # noqa: PTH101 - a descriptor, not a path
        if mtime_ns is not None and status.st_mtime_ns != mtime_ns:
            os.utime(itself, ns=(mtime_ns, mtime_ns))
        time = status.st_mtime_ns if mtime_ns is None else mtime_ns
        return (status.st_ino if is_file else None), time
    finally:
        os.close(fd)
