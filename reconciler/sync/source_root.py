"""Opens a directory of this machine that a project names as its source, unless it may not be one."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from agent.errors import PathRefused
from agent.folders import OPEN_FOLDER, Folders
from agent.scan import OPEN_FILE, read_exactly
from reconciler.errors import LookFailed


def open_source(directory: str, private: Iterable[str]) -> int:
    """A descriptor of `directory`; blocks. `private` are real paths of what must never leave this machine.

    No symlink is followed on the way to it: who may change one would choose what is sent. Raises PathRefused
    for a directory that must not be sent, LookFailed where it cannot be opened, which is not the same as
    empty.
    """
    path = os.path.normpath(directory)
    try:
        fd = os.open(path, OPEN_FOLDER)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and Path(path).is_symlink():
            raise _linked(path) from error
        raise LookFailed(f"cannot read the directory {path}: {error.strerror}") from error
    try:
        real = str(Path(f"/proc/self/fd/{fd}").readlink())
        if os.fstat(fd).st_nlink == 0:
            raise LookFailed(f"cannot read the directory {path}: it was removed just now")
        if real != path:
            raise _linked(path)
        for place in private:
            if _within(real, place) or _within(place, real):
                relation = "lies in" if _within(real, place) else "contains"
                raise PathRefused(
                    f"{path} {relation} {place}, which holds trueup's own keys and files and is never sent",
                    hint="put what is to be synced into a directory of its own",
                )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _linked(path: str) -> PathRefused:
    real = os.path.realpath(path)
    return PathRefused(
        f"the way to the directory {path} leads through a symlink, which is not followed",
        hint=f"name the directory itself, {real}, if that is what is meant",
    )


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place.rstrip('/')}/")


def read_text(root_fd: int, path: str, *, max_size: int) -> bytes | None:
    """The content of a file below an open directory, no symlink followed; blocks. None: there is none.

    Raises LookFailed for one that is too long or cannot be read, PathRefused for what is no file.
    """
    try:
        with Folders(root_fd) as folders:
            above, name = folders.locate(path)
            fd = os.open(name, OPEN_FILE, dir_fd=above)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise PathRefused(f"{path!r} in the directory is no regular file") from error
        raise LookFailed(f"cannot read {path!r} in the directory: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size > max_size:
            raise LookFailed(f"{path!r} in the directory has {size} bytes; at most {max_size} are read")
        content = bytearray(size)
        if not read_exactly(fd, memoryview(content), 0):
            raise LookFailed(f"{path!r} in the directory changed while it was read")
        return bytes(content)
    except OSError as error:
        raise LookFailed(f"cannot read {path!r} in the directory: {error.strerror}") from error
    finally:
        os.close(fd)
