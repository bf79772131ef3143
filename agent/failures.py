"""Why a task failed, as a stable reason for the report and one line for people."""

import errno
from collections.abc import Sequence
from typing import Final

from agent.errors import TrueupError
from agent.filenames import named

_REASONS: Final = {
    errno.ENOSPC: ("DiskFull", "the disk is full; free some space or make the tree smaller"),
    errno.EDQUOT: ("DiskFull", "the disk quota is used up"),
    errno.EACCES: ("PermissionDenied", "the agent's user may not do this; check owner and mode"),
    errno.EPERM: (
        "PermissionDenied",
        "the agent's user may not do this; check owner and mode, and attributes with `lsattr`",
    ),
    errno.EROFS: ("ReadOnlyFileSystem", "the file system is mounted read-only"),
    errno.EIO: ("InputOutputError", "the disk reports an error; check its health"),
    errno.ENAMETOOLONG: ("NameTooLong", "the file system does not take such a long name"),
    errno.EMFILE: ("TooManyOpenFiles", "raise the agent's limit of open files"),
    errno.ENFILE: ("TooManyOpenFiles", "the host has run out of open files"),
    errno.EXDEV: ("CrossesFileSystems", "another file system is mounted inside the target"),
    errno.EBUSY: ("Busy", "a mount point or something in use is in the way"),
    errno.ETXTBSY: ("Busy", "something in use is in the way"),
}

_MOVED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR)
"""What the system says when somebody else moves, makes or replaces things where a task is at work."""

MAX_WARNINGS: Final = 50
MAX_WARNING: Final = 400


class TaskFailed(TrueupError):
    """A task can't be done as asked. `code` is the stable reason of its report."""

    reason = "SyncFailed"

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def shortened(warnings: Sequence[str]) -> tuple[str, ...]:
    """As many warnings as a report has room for, and how many are left out."""
    told = [warning[:MAX_WARNING] for warning in warnings[:MAX_WARNINGS]]
    if len(warnings) > MAX_WARNINGS:
        told.append(f"and {len(warnings) - MAX_WARNINGS} more")
    return tuple(told)


def code_of(error: Exception) -> str:
    """The stable reason for an error that ends a task."""
    if isinstance(error, TaskFailed):
        return error.code
    if isinstance(error, TrueupError):
        return error.reason
    if isinstance(error, OSError):
        return _reason_of(error)[0]
    return "InternalError"


def _reason_of(error: OSError) -> tuple[str, str]:
    # In a target all names are relative; with an absolute one it is something of the agent's own.
    if error.errno in _MOVED and not str(error.filename or "").startswith("/"):
        return "TargetChanged", "somebody else changes the target; it is tried again"
    return _REASONS.get(error.errno or 0, ("FileSystemError", ""))


def line_of(error: Exception) -> str:
    """One line for a person: what went wrong, where, and what to do."""
    if isinstance(error, OSError):
        # A call that took a descriptor names its number.
        where = "" if isinstance(error.filename, int) or not error.filename else f"{named(error.filename)}: "
        hint = _reason_of(error)[1]
        what = error.strerror or type(error).__name__
        return f"{where}{what}" + (f"; {hint}" if hint else "")
    return " ".join(str(error).split()) or type(error).__name__


class about:
    """Lets the system's errors in here name `path`, in the target, whatever the call that failed was given:
    a descriptor, a name in staging, or the last part of the path alone. That /proc is away, through which
    some descriptors are used, is said as it is: it tells nothing of the path."""

    # Not made of a generator: it is entered for each file, and costs a tenth so.
    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not _is_of_proc(error):
            error.filename = self._path
            del error.filename2


def _is_of_proc(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) and str(error.filename).startswith("/proc/self/fd/")


def single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of a group that tells most: anything but a cancellation, the first one."""
    leaves = list(_leaves(group))
    for leaf in leaves:
        if isinstance(leaf, Exception):
            return leaf
    return leaves[0]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
