"""What a primary asks of the kernel for itself: no core dumps, nobody in its memory, room for connections."""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """No crash of this process writes its memory, in which secrets are, to a disk or to a crash handler.

    Nobody but root may then read its memory or its environment in /proc, or trace it, so that a task of a
    repository that runs as the same user cannot either: prctl(2), PR_SET_DUMPABLE. A program that is started
    from here is free of that, and has no core dumps unless it asks for them. Raises OSError.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    # The limit alone is not enough: it does not hold where /proc/sys/kernel/core_pattern is a program.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def allow_open_files() -> None:
    """As many open files as the system allows: each agent takes two, and a usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
