"""Memory that a worker process can be shown: a frame is read into it once, and encrypted from it there.

It is a file in memory, mapped here. Whoever is given its descriptor reads the same bytes; nobody can make it
shorter under those who read it.
"""

import ctypes
import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from typing import IO, Final, NamedTuple

from agent.spread import LARGE

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Place(NamedTuple):
    """Where bytes are: a descriptor that stays its owner's, and how far into it."""

    fd: int
    offset: int


class Shared(mmap.mmap):
    """Its descriptor is closed with the last view of it."""

    fd = -1
    address = 0

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def new_buffer(size: int, *, shared: bool) -> memoryview:
    """Zeros to be written over; shared if that is wanted, worth it and possible, else of this process alone.

    Small ones are not worth two descriptors.
    """
    if shared and size >= LARGE:
        # Too many descriptors, or no such call: it is copied to the workers then.
        with suppress(OSError, AttributeError):
            return memoryview(_allocate(size))
    return memoryview(bytearray(size))


def shared_copy(content: bytes | memoryview) -> bytes | memoryview:
    """The same bytes in shared memory, if `new_buffer` would give such."""
    buffer = new_buffer(len(content), shared=True)
    if not isinstance(buffer.obj, Shared):
        return content
    buffer[:] = content
    return buffer


def place_of(view: memoryview) -> Place | None:
    """Where in shared memory a view begins; None if it is of other memory."""
    owner = view.obj
    if not isinstance(owner, Shared) or not view.nbytes:
        return None
    return Place(owner.fd, _address(view) - owner.address)


def file_of(content: bytes) -> IO[bytes]:
    """A file without a name that has this. Raises OSError."""
    file: IO[bytes]
    try:
        file = os.fdopen(_create(len(content)), "r+b")
    except (OSError, AttributeError):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        file.write(content)
        file.flush()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _allocate(size: int) -> Shared:
    fd = _create(size)
    try:
        shared = Shared(fd, size)
    except BaseException:
        os.close(fd)
        raise
    shared.fd = fd
    shared.address = _address(shared)
    return shared


def _create(size: int) -> int:
    fd = os.memfd_create("trueup", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _address(buffer: memoryview | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
