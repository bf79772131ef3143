"""Which installations are under way: each holds a lock of its own, beside the one on the state directory.

`trueup serve` goes on meanwhile, so that the lock of the state directory says nothing about them.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from reconciler.settings import Settings
from reconciler.state_lock import is_held

DIRECTORY: Final = "installing"


def hold(settings: Settings, id: str) -> int:
    """The descriptor of an installation's lock, which does not outlive its process. Raises OSError."""
    path = _path(settings, id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_name(f".{id}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)  # whoever finds it finds it locked
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def let_go(settings: Settings, id: str, descriptor: int) -> None:
    with suppress(OSError):
        _path(settings, id).unlink()
    os.close(descriptor)


def is_under_way(settings: Settings, id: str) -> bool:
    """Yes where that cannot be told. What one that was killed left is removed."""
    path = _path(settings, id)
    held = is_held(path)
    if not held:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return held


def _path(settings: Settings, id: str) -> Path:
    return settings.state_dir / DIRECTORY / id
