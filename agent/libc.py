"""Calls of the C library that Python does not offer: `syncfs`, `statx`, inotify, why there is no such user,
what malloc is told, and giving up rights."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Final, Literal, NamedTuple

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


_ACCOUNTS: Final = {
    ("user", str): "getpwnam_r",
    ("user", int): "getpwuid_r",
    ("group", str): "getgrnam_r",
    ("group", int): "getgrgid_r",
}
_ACCOUNT = struct.Struct("@PPI")
"""What `struct passwd` and `struct group` begin with: name, password, number."""
_USER = struct.Struct("@PPIIPP")
"""`struct passwd` as far as the home directory: a group and a text come before that."""
_ACCOUNT_SIZE = 256
_LEAST_ROOM, _MOST_ROOM = 4 * 1024, 64 * 1024 * 1024
"""For the rest of it; a group may have very many members."""


class Account(NamedTuple):
    name: str
    number: int
    home: str = ""
    """A user's home directory."""


def find_account(kind: Literal["user", "group"], key: str | int) -> Account | None:
    """A user or group, by name or number; None where there is none. Blocks.

    Raises OSError where a service that may know it could not be asked. Of that, too, Python's `pwd` and `grp`
    say that there is none.
    """
    function = _function(_ACCOUNTS[kind, type(key)])
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if isinstance(key, str) and "\0" in key:
        return None
    given = ctypes.c_uint(key) if isinstance(key, int) else ctypes.c_char_p(os.fsencode(key))
    room = _LEAST_ROOM
    while True:
        account, rest = ctypes.create_string_buffer(_ACCOUNT_SIZE), ctypes.create_string_buffer(room)
        found = ctypes.c_void_p()
        error = function(given, account, rest, ctypes.c_size_t(room), ctypes.byref(found))
        if error == errno.ERANGE and room < _MOST_ROOM:
            room *= 4
        elif error:
            raise OSError(error, os.strerror(error))
        elif not found:
            return None
        else:
            name, _, number = _ACCOUNT.unpack_from(account.raw)
            home = _USER.unpack_from(account.raw)[5] if kind == "user" else None
            return Account(_text(name), number, _text(home) if home else "")


def _text(at: int) -> str:
    return os.fsdecode(ctypes.string_at(at))


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


_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION = 0x20080522
_CAPABILITY_HEADER = struct.Struct("=Ii")
_CAPABILITY_SETS = struct.Struct("=6I")
"""Effective, permitted and inheritable, the low halves first."""


def _prctl(option: int, first: int = 0) -> bool:
    prctl = _function("prctl")
    given = (first, 0, 0, 0)
    return prctl is not None and prctl(ctypes.c_int(option), *map(ctypes.c_ulong, given)) == 0


def no_new_privileges() -> bool:
    """From now on no program that this thread starts gains rights; whether the system can do that."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def keep_capabilities(kept: Collection[int]) -> bool:
    """Give up all capabilities of this thread but these, for programs that it starts too; whether it worked.

    Where there are none, or the system has no such call, nothing changes.
    """
    capget, capset = _function("capget"), _function("capset")
    if capget is None or capset is None:
        return False
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if number not in kept:
            _prctl(_PR_CAPBSET_DROP, number)
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER.pack(_CAPABILITY_VERSION, 0))
    sets = ctypes.create_string_buffer(_CAPABILITY_SETS.size)
    if capget(header, sets) != 0:
        return False
    effective, permitted, _, more_effective, more_permitted, _ = _CAPABILITY_SETS.unpack_from(sets.raw)
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    left = (effective & low, permitted & low, 0, more_effective & high, more_permitted & high, 0)
    return capset(header, ctypes.create_string_buffer(_CAPABILITY_SETS.pack(*left))) == 0


_INOTIFY_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC


def inotify_begin() -> int:
    """A descriptor that gives notice of what is watched by it. Raises OSError."""
    return _checked("inotify_init1", ctypes.c_int(_INOTIFY_FLAGS))


def inotify_add(fd: int, path: str, mask: int) -> int:
    """The number of a watch; see inotify_add_watch(2). Raises OSError."""
    return _checked("inotify_add_watch", ctypes.c_int(fd), os.fsencode(path), ctypes.c_uint32(mask))


def inotify_remove(fd: int, watch: int) -> None:
    """Ends a watch, if there still is one."""
    with suppress(OSError):
        _checked("inotify_rm_watch", ctypes.c_int(fd), ctypes.c_int(watch))


def _checked(name: str, *arguments: object) -> int:
    function = _function(name)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = function(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
