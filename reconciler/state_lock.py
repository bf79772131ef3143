"""One lock on a state directory: nobody else works there meanwhile, and it does not outlive its process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reconciler.errors import SettingsError
from reconciler.settings import Settings

LOCK_FILE: Final = "primary.lock"


@contextmanager
def lock_state(settings: Settings) -> Iterator[None]:
    """For the time of the block. Raises SettingsError if somebody else has it."""
    lock = take_lock(settings)
    if lock is None:
        raise not_alone(settings)
    try:
        yield
    finally:
        os.close(lock)


def not_alone(settings: Settings) -> SettingsError:
    return SettingsError(
        f"another trueup works on {settings.state_dir}", hint="wait for it, or give --state-dir"
    )


def take_lock(settings: Settings) -> int | None:
    """The descriptor that holds it; None while another process does."""
    path = settings.state_dir / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be opened: {error.strerror}",
            hint="run trueup as the owner of the state directory, or give another with --state-dir",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(settings: Settings) -> bool:
    """Whether somebody works there; yes where that cannot be told. Nothing is made, and nothing kept."""
    return is_held(settings.state_dir / LOCK_FILE)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file; yes where that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
