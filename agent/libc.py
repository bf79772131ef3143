"""Calls of the C library that Python does not offer: `syncfs`, `statx`, and what malloc is told."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_SIZE = 256
_MASK = struct.Struct("=I")
_BIRTH = struct.Struct("=qI")
_BIRTH_AT = 80


@cache
def _function(name: str) -> Callable[..., int] | None:
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return function


def sync_file_system(fd: int) -> None:
    """Writes all that is dirty on the file system of `fd`: one call for many files, which costs far
    less than an fsync each. Blocks; raises OSError if the disk failed."""
    syncfs = _function("syncfs")
    if syncfs is None:
        os.sync()
    elif syncfs(ctypes.c_int(fd)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def birth_time(fd: int) -> int:
    """When the inode of `fd` was made, in nanoseconds since the epoch; 0 where that is not known.

    An inode's number is given anew soon after its directory was removed; its time of birth is not.
    """
    statx = _function("statx")
    if statx is None:
        return 0
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    wanted = ctypes.c_uint(_STATX_BTIME)
    if statx(ctypes.c_int(fd), b"", ctypes.c_int(_AT_EMPTY_PATH), wanted, buffer) != 0:
        return 0
    if not _MASK.unpack_from(buffer.raw)[0] & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _BIRTH.unpack_from(buffer.raw, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 32 * 1024 * 1024
_LARGEST = 8 * 1024 * 1024
_USUAL = 128 * 1024

_bulk_users = 0


@contextmanager
def bulk_memory() -> Iterator[None]:
    """For the time of a transfer, what was freed is kept for the next frame.

    glibc gives each large buffer back to the system at once; a frame then costs hundreds of page faults,
    which took a quarter of the time a receiver of bulk data spends in the kernel. Once the last transfer
    has ended, all that is free goes back. Elsewhere than with glibc this does nothing.
    """
    global _bulk_users
    _bulk_users += 1
    if _bulk_users == 1:
        _tell_malloc(_MMAP_THRESHOLD, _LARGEST)
        _tell_malloc(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        _bulk_users -= 1
        if _bulk_users == 0:
            _tell_malloc(_MMAP_THRESHOLD, _USUAL)
            _tell_malloc(_TRIM_THRESHOLD, _USUAL)
            trim = _function("malloc_trim")
            if trim is not None:
                trim(ctypes.c_size_t(0))


def _tell_malloc(option: int, value: int) -> None:
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(ctypes.c_int(option), ctypes.c_int(value))
