"""Writes of several threads: each is on disk when it returns, and what fails in one leaves the others."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import JournalUnavailable
from reconciler.journal_file import JournalFile

THREADS, WRITES = 8, 40
EVENT = "INSERT INTO events (at, kind, resource, reason, message) VALUES ('', 'k', ?, '', '')"
ORPHAN = "INSERT INTO attempts (task, number, began_at) VALUES ('no such task', ?, '')"


def side_by_side(work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def names(path: Path) -> set[str]:
    """What another process finds."""
    other = sqlite3.connect(path)
    try:
        return {row[0] for row in other.execute("SELECT resource FROM events")}
    finally:
        other.close()


def test_what_was_written_is_there_for_others_when_the_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    file = JournalFile(path)

    def write(number: int) -> None:
        for turn in range(WRITES):
            with file.transaction() as cursor:
                cursor.execute(EVENT, (f"{number}-{turn}",))
            assert f"{number}-{turn}" in names(path)

    side_by_side(write)
    file.close()
    assert len(names(path)) == THREADS * WRITES


def test_a_write_that_fails_takes_back_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    file = JournalFile(path)

    def write(number: int) -> None:
        for turn in range(WRITES):
            if turn % 2:
                with file.transaction() as cursor:
                    cursor.execute(EVENT, (f"{number}-{turn}",))
            else:
                with pytest.raises(ZeroDivisionError), file.transaction() as cursor:
                    cursor.execute(EVENT, ("never",))
                    _ = 1 / 0

    side_by_side(write)
    file.close()
    assert names(path) == {f"{number}-{turn}" for number in range(THREADS) for turn in range(1, WRITES, 2)}


def test_all_writes_of_a_commit_that_fails_say_so(tmp_path: Path) -> None:
    """A reference to a row that is not there, checked at the commit, stands for a disk that breaks then."""
    path = tmp_path / "journal.sqlite"
    file = JournalFile(path)
    refused = []

    def write(number: int) -> None:
        for turn in range(WRITES):
            try:
                with file.transaction() as cursor:
                    cursor.execute(EVENT, (f"{number}-{turn}",))
                    if number == 0:
                        cursor.execute("PRAGMA defer_foreign_keys = ON")
                        cursor.execute(ORPHAN, (turn,))
            except JournalUnavailable:
                refused.append(f"{number}-{turn}")

    side_by_side(write)
    file.close()
    everything = {f"{number}-{turn}" for number in range(THREADS) for turn in range(WRITES)}
    assert names(path) == everything - set(refused)
    assert {f"0-{turn}" for turn in range(WRITES)} <= set(refused)
