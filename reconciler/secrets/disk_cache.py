"""Fetched lists on disk, sealed, so that a primary that starts during an outage has what it had before.

One file for each question, in a directory of its own that only its owner can enter. Nothing here is ever
needed: what is missing, damaged, foreign or too old is as if it had never been there.
"""

import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reconciler.errors import SettingsError
from reconciler.secrets.disk_cache_key import DiskCacheKey
from reconciler.secrets.stored import Clocks, Stored, age_now, binding, decode, encode
from reconciler.secrets.values import Secret

log = logging.getLogger(__name__)

MAX_FILES = 256
MAX_FILE = 8 * 1024 * 1024
"""Bytes; a larger list is kept in memory only."""
MAX_TOTAL = 64 * 1024 * 1024

_SUFFIX = ".sealed"
_DRAFT = ".draft"
_DRAFT_LIFE = 3600.0
"""Seconds after which the draft of a killed process is swept."""
_SLACK = 60.0
"""Seconds that a file of another process may be ahead of this one's clock."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_clocks() -> Clocks:
    return Clocks(time.time(), _boot(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Drops:
    """How often everything and one list were dropped: what was read before must not be written after."""

    all: int
    one: int


class DiskCache:
    """All methods block for as long as the file system does; none raises. Safe for threads."""

    def __init__(
        self, directory: Path, key: DiskCacheKey, *, clocks: Callable[[], Clocks] = read_clocks
    ) -> None:
        """Raises SettingsError where the directory cannot be made, or is no directory of ours."""
        self._directory = directory
        self._key = key
        self.clocks = clocks
        self._lock = threading.Lock()
        self._dropped_all = 0
        self._dropped: dict[str, int] = {}
        self._warned: set[str] = set()
        self._swept = False
        self.max_age = 0.0
        """Seconds: whatever is older can serve nobody, and is removed."""
        _make_private(directory)

    def mark(self, credentials: Sequence[Secret]) -> bytes:
        """What stands for the values of these credentials; it is bound into a file and written nowhere."""
        return self._key.mark(credentials)

    def load(self, question: bytes, mark: bytes) -> tuple[Stored, float] | None:
        """What is kept for a question of who has these credentials, and its age in seconds."""
        name = self._key.name(question) + _SUFFIX
        try:
            with self._open_directory() as directory:
                if not self._swept:
                    self._swept = True
                    self._sweep(directory)
                data = _read(directory, name)
                if data is None:
                    return None
                opened = self._key.unseal(data, binding(question, mark)) if len(data) <= MAX_FILE else None
                stored = None if opened is None else decode(opened)
                if stored is None:
                    self._warn("a file in it is damaged, of another key or of other credentials, and ignored")
                    return None
                age = age_now(stored, self.clocks())
                if age is None or age > self.max_age:
                    _remove(directory, name)
                    return None
        except OSError as error:
            self._warn(f"it cannot be read: {error.strerror}")
            return None
        return stored, age

    def drops(self, question: bytes) -> Drops:
        """To be read when an answer arrives, and given to `save`."""
        return Drops(self._dropped_all, self._dropped.get(self._key.name(question), 0))

    def save(self, question: bytes, mark: bytes, stored: Stored, drops: Drops) -> None:
        """Keep a list; not one that was dropped since `drops` was read."""
        sealed = self._key.seal(encode(stored), binding(question, mark))
        if len(sealed) > MAX_FILE:
            self._warn(f"a list is larger than {MAX_FILE} bytes and is kept in memory only")
            return
        name = self._key.name(question)
        try:
            with self._open_directory() as directory:
                draft = f"{name}.{secrets.token_hex(8)}{_DRAFT}"
                try:
                    _write(directory, draft, sealed, stored.at.wall)
                    with self._lock:
                        if drops == self.drops(question):
                            os.replace(draft, name + _SUFFIX, src_dir_fd=directory, dst_dir_fd=directory)
                finally:
                    _remove(directory, draft)
                os.fsync(directory)
                self._sweep(directory)
        except OSError as error:
            self._warn(f"it cannot be written: {error.strerror}; secrets are kept in memory only")

    def drop(self, question: bytes) -> bool:
        """Remove what is kept for a question; says whether there was anything."""
        name = self._key.name(question)
        with self._lock:
            self._dropped[name] = self._dropped.get(name, 0) + 1
            return self._removed([name + _SUFFIX]) > 0

    def drop_all(self) -> int:
        """Remove all files of this cache, those of earlier specs and keys too; says how many."""
        with self._lock:
            self._dropped_all += 1
            return self._removed(None)

    def _removed(self, names: list[str] | None) -> int:
        try:
            with self._open_directory() as directory:
                if names is None:
                    names = [name for name in os.listdir(directory) if name.endswith(_SUFFIX)]
                return sum(_remove(directory, name) for name in names)
        except OSError as error:
            self._warn(f"it cannot be cleared: {error.strerror}")
            return 0

    def _sweep(self, directory: int) -> None:
        """Remove what is too old, and what is too much, the oldest first."""
        now = self.clocks().wall
        kept: list[tuple[float, int, str]] = []
        for name in os.listdir(directory):
            limit = {_SUFFIX: self.max_age, _DRAFT: _DRAFT_LIFE}.get(Path(name).suffix)
            if limit is None:
                continue
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            age = now - found.st_mtime
            if not -_SLACK <= age <= limit:
                _remove(directory, name)
            else:
                kept.append((age, found.st_size, name))
        total = 0
        for number, (_, size, name) in enumerate(sorted(kept)):
            total += size
            if number >= MAX_FILES or total > MAX_TOTAL:
                _remove(directory, name)

    @contextmanager
    def _open_directory(self) -> Iterator[int]:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _warn(self, problem: str) -> None:
        """One line for each kind of trouble, however many files have it."""
        if problem not in self._warned:
            self._warned.add(problem)
            log.warning("the secret cache at %s: %s", self._directory, problem)


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SettingsError(f"{directory} is not a directory of this user", hint="move it away")
        if stat.S_IMODE(found.st_mode) != 0o700:
            directory.chmod(0o700)
    except OSError as error:
        raise SettingsError(f"{directory} cannot be made: {error.strerror}") from None


def _read(directory: int, name: str) -> bytes | None:
    """At most one byte more than a file may have; None where there is none."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return b""
    with open(descriptor, "rb") as file:
        return file.read(MAX_FILE + 1)


def _write(directory: int, name: str, data: bytes, wall: float) -> None:
    """`wall` becomes the file's time, so that sweeping goes by the same clock as all else."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(data)
        file.flush()
        os.utime(file.fileno(), (wall, wall))
        os.fsync(file.fileno())


def _remove(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
