"""Under which name a state directory takes the lease, and what it last knew of it: `lease.json` there.

Who finds its own name in the lease takes it at once: the process before it is dead, as its successor has
the lock of the directory. So a directory that was copied, as for a backup, must not bring the name along:
the file says which file it is on which machine, and counts only there.
"""

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from reconciler.errors import SettingsError

FILE_NAME: Final = "lease.json"
_MACHINE_ID: Final = Path("/etc/machine-id")
_MAX_SIZE: Final = 4096


class _Content(msgspec.Struct, frozen=True):
    holder: str
    machine: str
    inode: int
    oid: str = ""
    epoch: int = 0


@dataclass(slots=True)
class HolderFile:
    """The name, and the lease that was written or seen last.

    Nothing depends on it being on the disk: without it the next process waits like any other.
    """

    path: Path
    holder: str
    oid: str = ""
    epoch: int = 0

    @classmethod
    def open(cls, state_dir: Path) -> "HolderFile":
        """Raises SettingsError where it cannot be written. One that is damaged is made anew."""
        path = state_dir / FILE_NAME
        found = _read(path)
        if found is not None:
            return cls(path, found.holder, found.oid, found.epoch)
        made = cls(path, uuid.uuid4().hex)
        made.remember("", 0)
        return made

    def remember(self, oid: str, epoch: int) -> None:
        """Put down which lease was seen last, and that this directory is the one of the name."""
        self.oid, self.epoch = oid, epoch
        new = self.path.with_suffix(".new")
        try:
            with open(new, "wb", opener=_private) as file:
                inode = os.fstat(file.fileno()).st_ino
                content = _Content(self.holder, _machine(), inode, oid, epoch)
                file.write(msgspec.json.encode(content))
            new.replace(self.path)
        except OSError as error:
            raise SettingsError(f"{self.path}: cannot be written: {error.strerror}") from None


def _read(path: Path) -> _Content | None:
    try:
        with path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            content = msgspec.json.decode(file.read(_MAX_SIZE), type=_Content)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    return content if (content.inode, content.machine) == (inode, _machine()) else None


def _machine() -> str:
    with suppress(OSError, UnicodeDecodeError):
        return _MACHINE_ID.read_text("ascii").strip()
    return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
