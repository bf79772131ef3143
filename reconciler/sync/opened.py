"""A directory that is looked at, and what to say where it can't be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import LookFailed


@contextmanager
def opened(directory: Path, fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory, or `fd` where the caller has it open. Raises LookFailed where it can't be
    opened, and instead of any OSError that comes of its use."""
    own = -1
    if fd is None:
        try:
            fd = own = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LookFailed(f"cannot read the directory {directory}: {error.strerror}") from error
    try:
        yield fd
    except OSError as error:
        # Its files go by their paths in it.
        where = directory / os.fsdecode(error.filename) if error.filename else directory
        raise LookFailed(f"cannot read {where}: {error.strerror}") from error
    finally:
        if own >= 0:
            os.close(own)
