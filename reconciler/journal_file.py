"""The journal's SQLite file: made, migrated, set aside when damaged, one connection behind a lock."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.journal_migrations import MIGRATIONS

log: structlog.stdlib.BoundLogger = structlog.get_logger()

JOURNAL_FILE: Final = "journal.sqlite"
"""Its name in the state directory."""

BUSY_TIMEOUT: Final = 10.0
"""Seconds that a write waits for another process, such as `trueup events`, to let go of the file."""

LATE: Final = 0.5
"""Seconds after which a write looks after its commit itself."""


class _Group:
    """Writes that become durable together."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.failure: sqlite3.Error | None = None


class JournalFile:
    """An open journal. `set_aside` is where a damaged file went that this one replaces."""

    set_aside: Path | None = None

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """With `read_only` the file is not made, migrated or set aside; SettingsError for another version."""
        self._path = path
        self._lock = threading.Lock()
        self._entrance = threading.Lock()
        self._entering = 0
        """Threads that want the lock in order to write."""
        self._group: _Group | None = None
        try:
            self._connection = self._open_to_read() if read_only else self._open()
        except sqlite3.OperationalError as error:
            raise self._unavailable(error) from None
        except sqlite3.DatabaseError as error:
            if read_only:  # a primary may be at work on it
                raise self._unavailable(error) from None
            try:
                self.set_aside = self._put_aside()
                self._connection = self._open()
            except (sqlite3.Error, OSError) as second:
                raise self._unavailable(second) from None
            log.warning(
                "the journal was damaged; it was set aside and a new one begun",
                damage=str(error),
                journal=str(path),
                set_aside=str(self.set_aside),
            )
        except OSError as error:
            raise self._unavailable(error) from None

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """A write that is on disk as a whole once the block is left. Raises JournalUnavailable.

        Threads that write at the same time share one flush, which costs more than all the rest: who finds
        others on their way in leaves the commit to the last of them, and waits for it.
        """
        with self._entrance:
            self._entering += 1
        try:
            self._lock.acquire()
        finally:
            with self._entrance:
                self._entering -= 1
        try:
            group = self._write_into_group()
            try:
                with self._savepoint(group) as cursor:
                    yield cursor
            finally:
                with self._entrance:
                    is_last = not self._entering
                if is_last:
                    self._commit(group)
        finally:
            self._lock.release()
        while not group.done.wait(LATE):
            with self._lock:  # whoever was on the way in did not arrive
                self._commit(group)
        if group.failure is not None:
            raise self._unavailable(group.failure)

    def _write_into_group(self) -> "_Group":
        if self._group is None:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._unavailable(error) from None
            self._group = _Group()
        return self._group

    @contextmanager
    def _savepoint(self, group: "_Group") -> Iterator[sqlite3.Cursor]:
        """One of the writes of a group: what fails in it leaves the others alone."""
        try:
            cursor = self._connection.execute("SAVEPOINT one")
            try:
                yield cursor
                self._connection.execute("RELEASE one")
            except BaseException as error:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK TO one")
                        self._connection.execute("RELEASE one")
                else:
                    # A full or broken disk takes back everything at once.
                    lost = sqlite3.OperationalError("the disk took a write back")
                    self._end(group, error if isinstance(error, sqlite3.Error) else lost)
                raise
        except sqlite3.IntegrityError:
            raise  # the caller's mistake, such as a task's id used twice
        except sqlite3.Error as error:
            raise self._unavailable(error) from None

    def _commit(self, group: "_Group") -> None:
        if group.done.is_set():
            return
        try:
            self._connection.execute("COMMIT")
            self._end(group, None)
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._end(group, error)

    def _end(self, group: "_Group", failure: sqlite3.Error | None) -> None:
        group.failure = failure
        self._group = None
        group.done.set()

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """All rows of a SELECT. Raises JournalUnavailable."""
        with self._lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._unavailable(error) from None

    def _open(self) -> sqlite3.Connection:
        # SQLite gives its -wal and -shm files the mode of the main file.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL, as NORMAL may lose the last commits in a power cut, and with them that a step began.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(str(found))
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if self._version(connection) < len(MIGRATIONS):
                raise SettingsError(
                    f"the journal {self._path} was written by an older trueup",
                    hint="let this version of `trueup serve` or `trueup reconcile` work on it first",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise SettingsError(
                f"the journal {self._path} was written by a newer trueup",
                hint="use that version, or move the file away to begin a new one",
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for migration in MIGRATIONS[self._version(connection) :]:
            for statement in migration.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    def _put_aside(self) -> Path:
        """Renames the damaged file and what SQLite keeps beside it; the first free number is taken."""
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
            number += 1
        self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            beside = self._path.with_name(self._path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        return aside

    def _unavailable(self, error: Exception) -> JournalUnavailable:
        return JournalUnavailable(
            f"the journal {self._path} cannot be used: {error}",
            hint="see that the state directory is writable and has room",
        )
