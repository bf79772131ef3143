"""Files that share their room on the disk with others until one of them is written to, where the file system
can do that: btrfs and XFS for example. Nothing is read or written for it.

What was shared has to be verified afterwards, in the file that got it: the other one may be changed at any
time, and what was read from it before says nothing.
"""

import errno
import fcntl
import os
import struct

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_RANGE = struct.Struct("=qQQQ")

_NEVER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM)
"""What says that this file system, or this host, does not do it."""


class Sharing:
    """Of one task: where it was refused once, it is not tried again."""

    def __init__(self) -> None:
        self.possible = True

    def whole(self, copy: int, fd: int) -> bool:
        """Gives the new file `copy` all that `fd` holds; whether that was done. Raises OSError."""
        return self._do(copy, _FICLONE, fd)

    def part(self, copy: int, offset: int, fd: int, source_offset: int, length: int) -> bool:
        """Gives `copy` at `offset` what `fd` holds from `source_offset` on, all of it within the file and
        at multiples of the file system's blocks; whether that was done."""
        try:
            return self._do(copy, _FICLONERANGE, _RANGE.pack(fd, source_offset, length, offset))
        except OSError:
            return False  # whoever copies instead meets what is wrong

    def _do(self, copy: int, request: int, argument: int | bytes) -> bool:
        if not self.possible:
            return False
        try:
            fcntl.ioctl(copy, request, argument)
        except OSError as error:
            if error.errno not in _NEVER:
                raise
            self.possible = False
            return False
        return True


def can_share(folder_fd: int) -> bool:
    """Whether files below a directory can share their room, found out with two that have no name; blocks."""
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    try:
        one = os.open(".", flags, 0o600, dir_fd=folder_fd)
    except OSError:
        return False
    try:
        other = os.open(".", flags, 0o600, dir_fd=folder_fd)
        try:
            os.pwrite(one, b"\0", 0)
            return Sharing().whole(other, one)
        finally:
            os.close(other)
    except OSError:
        return False
    finally:
        os.close(one)
