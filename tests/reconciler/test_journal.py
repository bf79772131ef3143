"""The journal against real files and real kills: what was on disk is there again, damage is survived."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import journal_file, journal_migrations, journal_records, journal_retention
from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.hashing import Inputs
from reconciler.journal import Journal

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path, now=lambda: MOMENT) as journal:
        yield journal


def begin(journal: Journal, resource: str = "services/prod/web", config_hash: str = "v1:a:b:c") -> int:
    return journal.begin_step(
        journal.begin_pass("c" * 40),
        resource,
        "deploy",
        config_hash,
        "env LOG_LEVEL changed",
        revision="v1.0.1@sha1:" + "d" * 40,
        inputs=Inputs({"env LOG_LEVEL": "1f"}, {"DB_URL": "2e"}),
    )


def test_a_step_is_told_as_it_was_given(journal: Journal) -> None:
    step = begin(journal)
    (record,) = journal.steps()
    assert (record.id, record.outcome, record.ended_at) == (step, "", "")
    journal.end_step(
        step, "succeeded", "ReconciliationSucceeded", "done", {"tree": "ab", "after": ["x"], "n": 3}
    )
    (record,) = journal.unpublished()
    assert record.resource == "services/prod/web"
    assert record.config_hash == "v1:a:b:c"
    assert record.revision == "v1.0.1@sha1:" + "d" * 40
    assert record.inputs == Inputs({"env LOG_LEVEL": "1f"}, {"DB_URL": "2e"})
    assert record.result == {"tree": "ab", "after": ["x"], "n": 3}
    assert record.ended_at == "2026-03-01T12:00:00.000+00:00"
    assert journal.interrupted() == ()


def test_results_wait_until_they_are_published(journal: Journal) -> None:
    first, second, failed = begin(journal, "a"), begin(journal, "b"), begin(journal, "c")
    journal.end_step(second, "succeeded", "ReconciliationSucceeded")
    journal.end_step(first, "succeeded", "ReconciliationSucceeded")
    journal.end_step(failed, "failed", "DeployFailed", "exit code 1")
    assert [record.id for record in journal.unpublished()] == [first, second]
    journal.mark_published([first])
    journal.mark_published([])
    assert [record.id for record in journal.unpublished()] == [second]


def test_a_step_ends_once(journal: Journal) -> None:
    step = begin(journal)
    journal.end_step(step, "succeeded", "ReconciliationSucceeded")
    journal.end_step(step, "cancelled", "Superseded")
    assert [record.outcome for record in journal.steps()] == ["succeeded"]


def test_interrupted_are_those_that_nobody_is_at(path: Path) -> None:
    with Journal(path) as first:
        done, gone = begin(first, "done"), begin(first, "gone")
        first.end_step(done, "succeeded", "ReconciliationSucceeded")
        assert first.interrupted([gone]) == ()
        assert [record.id for record in first.interrupted()] == [gone]
    with Journal(path) as second:
        running = begin(second, "running")
        assert [record.id for record in second.interrupted([running])] == [gone]
        # Another failure leaves open what the interrupted one did; only success settles it.
        again = begin(second, "gone")
        second.end_step(again, "failed", "DeployFailed")
        assert [record.id for record in second.interrupted([running])] == [gone, again]
        # Once the status branch tells of a failure, it is known there.
        second.mark_published([again])
        assert [record.id for record in second.interrupted([running])] == [gone]
        again = begin(second, "gone")
        second.end_step(again, "succeeded", "ReconciliationSucceeded")
        assert second.interrupted([running]) == ()
        second.end_step(running, "cancelled", "Superseded")
    with Journal(path) as third:
        assert third.interrupted() == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from reconciler.journal import Journal
journal = Journal(Path(sys.argv[1]))
each = journal.begin_pass("c" * 40)
done = journal.begin_step(each, "done", "deploy", "h", "new")
journal.end_step(done, "succeeded", "ReconciliationSucceeded", "", {"exit_code": 0})
journal.begin_step(each, "open", "deploy", "h", "new")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing_that_returned(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert journal.set_aside is None
        assert [record.resource for record in journal.unpublished()] == ["done"]
        assert [record.resource for record in journal.interrupted()] == ["open"]


def test_what_is_begun_is_flushed_to_disk(journal: Journal, path: Path) -> None:
    assert journal._file.query("PRAGMA synchronous")[0][0] == 2  # FULL
    assert journal._file.query("PRAGMA journal_mode")[0][0] == "wal"


@pytest.mark.parametrize("damage", ["text", "zeros", "truncated", "pages"])
def test_a_damaged_file_is_set_aside(path: Path, damage: str) -> None:
    with Journal(path) as journal:
        for number in range(200):
            begin(journal, f"services/prod/{number}")
    size = path.stat().st_size
    with path.open("r+b") as file:
        match damage:
            case "text":
                file.write(b"this is not a database" * 10)
            case "zeros":
                file.write(bytes(size))
            case "truncated":
                file.truncate(size // 2)
            case "pages":
                file.seek(4096)
                file.write(os.urandom(size - 4096))
    for number in (1, 2):
        with Journal(path) as journal:
            assert journal.set_aside == path.with_name(f"journal.sqlite.corrupt-{number}")
            assert journal.set_aside.exists()
            assert journal.steps() == ()
            begin(journal)
        path.write_bytes(b"damaged again")


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    path.touch()
    with Journal(path) as journal:
        assert journal.set_aside is None
        begin(journal)


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="newer trueup"):
        Journal(path)
    assert path.read_bytes() == before


def test_an_older_file_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path) as journal:
        begin(journal)
    added = "ALTER TABLE events ADD COLUMN extra TEXT NOT NULL DEFAULT 'x'"
    newer = (*journal_migrations.MIGRATIONS, added)
    monkeypatch.setattr(journal_file, "MIGRATIONS", newer)
    for _ in range(2):
        with Journal(path) as journal:
            journal.record_event("paired", "nodes/web-1")
            assert journal._file.query("PRAGMA user_version")[0][0] == len(newer)
            assert journal._file.query("SELECT DISTINCT extra FROM events") == [("x",)]
            assert len(journal.steps()) == 1


def test_the_files_are_their_owners_alone(journal: Journal, path: Path) -> None:
    begin(journal)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"), 0o600)


def test_threads_share_it(journal: Journal) -> None:
    each = journal.begin_pass("c" * 40)

    def work(thread: int) -> None:
        for number in range(20):
            step = journal.begin_step(each, f"{thread}/{number}", "deploy", "h", "new")
            journal.end_step(step, "succeeded", "ReconciliationSucceeded", "", {"thread": thread})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = journal.unpublished()
    assert len(records) == 160
    assert {record.resource for record in records} == {f"{t}/{n}" for t in range(8) for n in range(20)}
    assert all(record.result == {"thread": int(record.resource.split("/")[0])} for record in records)


def test_another_process_may_read_meanwhile(journal: Journal, path: Path) -> None:
    begin(journal)
    with Journal(path) as reader:
        assert len(reader.steps()) == 1
        begin(journal)
        assert len(reader.steps()) == 2


def test_tasks_and_attempts(journal: Journal, path: Path) -> None:
    journal.create_task("t1", "projects/prod/a/web-1/srv+a", "web-1")
    assert [(task.state, task.attempts) for task in journal.tasks()] == [("PENDING", ())]
    first = journal.begin_attempt("t1")
    assert journal.tasks()[0].state == "RUNNING"
    journal.end_attempt("t1", first, "RETRYING", "AgentUnreachable", "web-1 is not connected")
    assert journal.tasks()[0].state == "RETRYING"
    second = journal.begin_attempt("t1")
    journal.end_attempt("t1", second, "SUCCESS")
    (task,) = journal.tasks()
    assert task.state == "SUCCESS"
    assert [(attempt.number, attempt.state) for attempt in task.attempts] == [(1, "RETRYING"), (2, "SUCCESS")]
    assert task.attempts[0].reason == "AgentUnreachable"
    with pytest.raises(sqlite3.IntegrityError):
        journal.create_task("t1", "projects/prod/a/web-1/srv+a", "web-1")


def test_tasks_that_a_killed_process_left_are_failed(path: Path) -> None:
    with Journal(path) as first:
        for name in ("pending", "running", "done"):
            first.create_task(name, "projects/prod/a/web-1/srv+a", "web-1")
        first.begin_attempt("running")
        first.end_attempt("done", first.begin_attempt("done"), "SUCCESS")
    with Journal(path) as second:
        second.create_task("mine", "projects/prod/a/web-1/srv+a", "web-1")
        assert second.fail_interrupted_tasks(lambda _: True) == 2
        assert {task.id: task.state for task in second.tasks()} == {
            "pending": "FAILED",
            "running": "FAILED",
            "done": "SUCCESS",
            "mine": "PENDING",
        }
        running = next(task for task in second.tasks() if task.id == "running")
        assert running.attempts[0].reason == "Interrupted"


def test_an_installation_is_interrupted_once_it_is_not_under_way(path: Path) -> None:
    with Journal(path) as first:
        for id in ("alive", "killed"):
            first.create_task(id, "nodes/web-1", "web-1")
            first.begin_attempt(id)
        first.create_task("sync", "projects/prod/a/web-1/srv+a", "web-1")
    with Journal(path) as second:
        assert second.fail_interrupted_tasks(lambda id: id == "alive", installations_alone=True) == 1
        states = {"alive": "RUNNING", "killed": "FAILED", "sync": "PENDING"}
        assert {task.id: task.state for task in second.tasks()} == states
        assert second.fail_interrupted_tasks(lambda id: id == "alive") == 1
        assert {task.id: task.state for task in second.tasks()} == {**states, "sync": "FAILED"}


def test_events_come_newest_first(journal: Journal) -> None:
    for number in range(5):
        journal.record_event("transition", "services/prod/web", "DeployFailed", f"number {number}")
    assert [event.message for event in journal.events(2)] == ["number 4", "number 3"]


def test_what_is_stored_is_bounded(journal: Journal) -> None:
    step = begin(journal)
    journal.end_step(step, "failed", "DeployFailed", "x" * 1_000_000, {"output": "y" * 1_000})
    (record,) = journal.steps()
    assert len(record.message) == journal_records.MAX_MESSAGE
    assert record.result == {"output": "y" * 1_000}


def test_a_result_too_large_to_keep_is_not_taken_for_an_empty_one(path: Path) -> None:
    with Journal(path) as journal:
        step = begin(journal)
        journal.end_step(step, "succeeded", "ReconciliationSucceeded", "", {"output": "y" * 1_000_000})
        assert journal.unpublished() == ()


def test_old_records_are_forgotten_but_never_the_last_of_a_resource(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_retention, "KEEP_PASSES", 3)
    monkeypatch.setattr(journal_retention, "KEEP_TASKS", 2)
    monkeypatch.setattr(journal_retention, "KEEP_EVENTS", 4)
    waiting = begin(journal, "waiting")
    journal.end_step(waiting, "succeeded", "ReconciliationSucceeded")
    for number in range(10):
        step = begin(journal, "busy")
        journal.end_step(step, "succeeded", "ReconciliationSucceeded")
        journal.create_task(f"t{number}", "projects/prod/a/web-1/srv+a", "web-1")
        journal.end_attempt(f"t{number}", journal.begin_attempt(f"t{number}"), "SUCCESS")
        journal.record_event("transition")
        journal.end_pass(journal.passes(1)[0].id, "succeeded")
    assert len(journal.passes()) == 3
    assert [record.resource for record in journal.steps()] == ["busy"] * 3 + ["waiting"]
    assert journal.unpublished()[0].id == waiting
    assert [task.id for task in journal.tasks()] == ["t9", "t8"]
    assert journal._file.query("SELECT count(*) FROM attempts") == [(2,)]
    assert len(journal.events()) == 4


def test_where_no_file_can_be_made_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="state directory"):
        Journal(tmp_path / "missing" / "journal.sqlite")
    (tmp_path / "directory").mkdir()
    with pytest.raises(JournalUnavailable):
        Journal(tmp_path / "directory")


def test_a_full_disk_is_reported_and_the_file_stays_whole(journal: Journal, path: Path) -> None:
    begin(journal)
    pages = journal._file.query("PRAGMA page_count")[0][0]
    journal._file.query(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalUnavailable, match="full"):
        for _ in range(1_000):
            begin(journal)
    known = len(journal.steps(limit=10_000))
    journal._file.query("PRAGMA max_page_count = 1000000")
    begin(journal)
    assert len(journal.steps(limit=10_000)) == known + 1
