"""`trueup backup` and `trueup restore`: of the state directory, what cannot be fetched or made again.

That is the journal and, where asked for, the master key. Mirrors are fetched again, checkouts, certificates
and sockets made again, and secret values are kept nowhere. A backup is a tar archive, its first member a
list of the others with their digests; `restore` takes in nothing that is not on that list.
"""

import hashlib
import os
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import msgspec

from agent.version import agent_version
from reconciler.errors import SettingsError, TrueupError
from reconciler.journal_file import JOURNAL_FILE
from reconciler.journal_migrations import MIGRATIONS
from reconciler.keys import MasterKey, read_key_file
from reconciler.primary import KEY_FILE, key_path, load_key
from reconciler.settings import Settings
from reconciler.state_lock import LOCK_FILE, lock_state

FORMAT: Final = 1
"""Of the archive. A newer one is refused by name, not half understood."""

LIST_FILE: Final = "backup.json"
MAX_LIST: Final = 64 << 10
MAX_SIZE: Final = 64 << 30
"""Bytes of one file in a backup."""

LEFT_OVER: Final = frozenset({LOCK_FILE, "lost+found"})
"""What may be in a state directory that counts as empty."""


class BackupInvalid(TrueupError):
    """A file that is no backup, or a damaged one; nothing was restored."""

    reason = "BackupInvalid"


class BackedUp(msgspec.Struct, frozen=True):
    """One file of a backup."""

    name: str
    size: int
    sha256: str


class BackupList(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup says of itself."""

    format: int
    version: str
    """Of the trueup that made it."""
    at: str
    key_id: str
    """Of the master key that goes with it, whether it is inside or not."""
    files: tuple[BackedUp, ...]


def back_up(settings: Settings, to: str, *, with_key: bool) -> list[str]:
    """Write a backup to a file, which only its owner can read, or to standard output; says what is in it.

    A primary may be running. An older file of that name is replaced once the new one is whole.
    """
    key = load_key(settings)
    if not settings.sees_state(JOURNAL_FILE):
        raise SettingsError(
            f"{settings.state_dir} has no {JOURNAL_FILE}", hint="name the primary's --state-dir"
        )
    if to == "-" and sys.stdout.isatty():
        raise SettingsError("a backup is not for a terminal", hint="give a FILE, or pipe the output on")
    try:
        with tempfile.TemporaryDirectory(prefix="backup-", dir=settings.state_dir) as work:
            copy = Path(work) / JOURNAL_FILE
            _copy_journal(settings.state_dir / JOURNAL_FILE, copy)
            if to == "-":
                listed = _pack(copy, key, sys.stdout.buffer, with_key=with_key)
                sys.stdout.buffer.flush()
            else:
                with _replaced(Path(to)) as file:
                    listed = _pack(copy, key, file, with_key=with_key)
    except OSError as error:
        where = error.filename or to
        raise SettingsError(f"the backup cannot be written: {where}: {error.strerror}") from None
    names = ", ".join(f"{file.name} ({file.size} bytes)" for file in listed.files)
    lines = [f"backed up {names} of {settings.state_dir}"]
    if not with_key:
        lines.append(f"without the master key {key.key_id}: keep that elsewhere (`trueup key show --reveal`)")
    return lines


def restore(settings: Settings, source: str) -> list[str]:
    """Put what is in a backup into the state directory, which must be empty; says what to do next.

    Nothing is left there of a backup that turns out to be damaged.
    """
    directory = settings.state_dir
    made = not directory.exists()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = {path.name for path in directory.iterdir()}
    except OSError as error:
        raise SettingsError(f"{directory} cannot be used: {error.strerror}") from None
    with lock_state(settings):
        if present := sorted(there - LEFT_OVER - {KEY_FILE}):
            raise SettingsError(
                f"{directory} is not empty: {', '.join(present[:3])}",
                hint="name an empty --state-dir, or move what is there away",
            )
        try:
            lines = _restored(settings, source)
        except BaseException:
            for name in (LIST_FILE, JOURNAL_FILE, *({KEY_FILE} - there)):
                with suppress(OSError):
                    (directory / name).unlink()
            if made:
                with suppress(OSError):
                    (directory / LOCK_FILE).unlink()
                    directory.rmdir()
            raise
    return lines


def _restored(settings: Settings, source: str) -> list[str]:
    directory = settings.state_dir
    try:
        with _opened(source) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            listed = _unpack(archive, directory, has_key=(directory / KEY_FILE).exists())
        _settle_journal(directory / JOURNAL_FILE)
    except (tarfile.TarError, EOFError, sqlite3.Error) as error:
        raise BackupInvalid(f"{source}: is damaged, or no backup: {error}") from None
    except OSError as error:
        raise SettingsError(f"{error.filename or source}: {error.strerror or error}") from None
    lines = [f"restored the backup of {listed.at} into {directory}"]
    try:
        key = load_key(settings)
    except SettingsError:
        lines.append(f"next: put the master key {listed.key_id} into {key_path(settings)}")
    else:
        if key.key_id != listed.key_id:
            lines.append(
                f"warning: the backup belongs to the master key {listed.key_id}, and here is {key.key_id}:"
                " with another one every agent has to be joined again"
            )
    return [*lines, "next: start the primary; it looks at everything before it acts"]


# --- writing -----------------------------------------------------------------------------------


def _copy_journal(path: Path, copy: Path) -> None:
    """A consistent copy, also while a primary writes."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(_connect(path)) as journal, closing(_connect(copy)) as target:
            journal.backup(target)
            found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
            target.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupInvalid(f"the journal {path} cannot be read: {error}") from None
    if found != "ok":
        raise BackupInvalid(
            f"the journal {path} is damaged: {found}",
            hint="start the primary, which sets it aside and begins a new one",
        )


def _pack(journal: Path, key: MasterKey, output: IO[bytes], *, with_key: bool) -> BackupList:
    # The key goes from memory into the archive: where it came from the environment, no disk has it.
    secret = f"{key.to_text()}\n".encode() if with_key else b""
    with journal.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        files = [BackedUp(JOURNAL_FILE, journal.stat().st_size, digest)]
        file.seek(0)
        if with_key:
            files.append(BackedUp(KEY_FILE, len(secret), hashlib.sha256(secret).hexdigest()))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        listed = BackupList(FORMAT, agent_version(), now, key.key_id, tuple(files))
        first = msgspec.json.format(msgspec.json.encode(listed)) + b"\n"
        contents: dict[str, IO[bytes]] = {JOURNAL_FILE: file, KEY_FILE: BytesIO(secret)}
        contents[LIST_FILE] = BytesIO(first)
        sizes = {LIST_FILE: len(first)} | {each.name: each.size for each in files}
        with tarfile.open(fileobj=output, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
            for name, size in sizes.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = size, 0o600, int(datetime.now(UTC).timestamp())
                archive.addfile(member, contents[name])
    return listed


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A new file, 0600, that takes the place of an older one once it is whole and on disk."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# --- reading -----------------------------------------------------------------------------------


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as file:
        yield file


def _unpack(archive: tarfile.TarFile, directory: Path, *, has_key: bool) -> BackupList:
    listed: BackupList | None = None
    missing: dict[str, BackedUp] = {}
    for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        if listed is None:
            if content is None or member.name != LIST_FILE:
                raise BackupInvalid("this is no backup of trueup", hint="name a file of `trueup backup`")
            listed = _list_in(content.read(MAX_LIST + 1))
            missing = {file.name: file for file in listed.files}
            if has_key and KEY_FILE in missing:
                raise SettingsError(
                    f"{directory / KEY_FILE} is there, and the backup has one too",
                    hint="move it away, or use a backup without key",
                )
            continue
        file = missing.pop(member.name, None)
        if file is None or content is None:
            raise BackupInvalid(f"the backup holds {member.name!r}, which is not on its list")
        _write_checked(directory / file.name, content, file)
    if listed is None or missing:
        raise BackupInvalid(f"the backup lacks {', '.join(sorted(missing)) or LIST_FILE}")
    if KEY_FILE in {file.name for file in listed.files}:
        read_key_file(directory / KEY_FILE)
    return listed


def _list_in(content: bytes) -> BackupList:
    try:
        listed = msgspec.json.decode(content, type=BackupList)
    except msgspec.MsgspecError:
        raise BackupInvalid("the backup's list cannot be read") from None
    if listed.format != FORMAT:
        raise BackupInvalid(
            f"the backup has the format {listed.format} of trueup {listed.version}",
            hint="restore it with that version",
        )
    names = [file.name for file in listed.files]
    if JOURNAL_FILE not in names or len(set(names)) < len(names) or set(names) - {JOURNAL_FILE, KEY_FILE}:
        raise BackupInvalid("the backup's list does not name what a backup has")
    return listed


def _write_checked(path: Path, content: IO[bytes], expected: BackedUp) -> None:
    """A new file with exactly what the list announced, on disk."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        while chunk := content.read(1 << 20):
            size += len(chunk)
            if size > min(expected.size, MAX_SIZE):
                break
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (size, digest.hexdigest()) != (expected.size, expected.sha256):
        raise BackupInvalid(f"{expected.name} in the backup is damaged: it is not what was backed up")


def _settle_journal(path: Path) -> None:
    """Check a restored journal, and let nothing in it speak for the time since.

    Results that the status branch was not told by then may be older than what it says by now: they count as
    interrupted, so that their steps are done again, instead of being published.
    """
    with closing(_connect(path)) as journal:
        if (found := journal.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise BackupInvalid(f"the journal in the backup is damaged: {found}")
        version: int = journal.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise BackupInvalid(
                "the journal in the backup was written by a newer trueup", hint="use that version"
            )
        if version:
            journal.execute(
                "UPDATE steps SET outcome = '', ended_at = '' WHERE outcome = 'succeeded' AND published = 0"
            )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10, isolation_level=None)
