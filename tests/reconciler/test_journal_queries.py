"""What is asked of the journal: by project, node, kind and resource, page by page; and what it forgets."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler import journal_retention
from reconciler.deploy_requests import AskedDeploy
from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.journal import Journal
from reconciler.journal_migrations import MIGRATIONS
from reconciler.journal_records import MAX_LOG
from reconciler.tracing import trace

SYNC = "projects/prod/site/web-1/srv+site"
REQUEST = AskedDeploy("id-1", "nonce-1", "d", "prod", "app", "v1", "c" * 40, "release", 1, "ci")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(path, now=clock) as journal:
        yield journal


def run(journal: Journal, id: str, *, node: str = "web-1", project: str = "site", log: str = "") -> None:
    journal.create_task(id, SYNC, node, project=project)
    journal.end_attempt(id, journal.begin_attempt(id), "SUCCESS", log=log, details={"files_written": 2})


def test_tasks_by_project_node_and_state(journal: Journal) -> None:
    run(journal, "a")
    run(journal, "b", node="web-2")
    run(journal, "c", project="other")
    journal.create_task("d", SYNC, "web-1", project="site")

    def ids(**wanted: Any) -> list[str]:
        return [task.id for task in journal.tasks(**wanted)]

    assert ids() == ["d", "c", "b", "a"]
    assert ids(project="site") == ["d", "b", "a"]
    assert ids(project="site", node="web-1", state="SUCCESS") == ["a"]
    assert ids(state="PENDING") == ["d"]
    assert ids(limit=2) == ["d", "c"]
    assert ids(limit=2, before="c") == ["b", "a"]
    assert ids(before="unknown") == []


def test_one_task_comes_with_what_its_attempts_printed(journal: Journal) -> None:
    run(journal, "a", log="restarted\n")
    run(journal, "b", log="x" * MAX_LOG + "the end")
    [b, a] = journal.tasks()
    assert (a.attempts[0].log, a.attempts[0].details) == ("", {"files_written": 2})
    asked = journal.task("a")
    assert asked is not None
    assert asked.attempts[0].log == "restarted\n"
    long = journal.task("b")
    assert long is not None
    assert long.attempts[0].log.endswith("the end")
    assert len(long.attempts[0].log) < MAX_LOG + 100
    assert b.project == "site"
    assert journal.task("c") is None


def test_a_step_keeps_an_excerpt_of_what_it_printed(journal: Journal) -> None:
    step = journal.begin_step(journal.begin_pass("c" * 40), "services/prod/web", "deploy", "h", "new")
    journal.end_step(step, "failed", "DeployFailed", "exit code 1", log="line\n" * MAX_LOG)
    [record] = journal.steps()
    assert record.log.startswith("line\nline\n")
    assert "characters left out" in record.log
    assert len(record.log) < MAX_LOG + 100


def test_events_forwards_and_backwards(journal: Journal) -> None:
    for number in range(1, 7):
        kind, resource = ("failed", "services/prod/web") if number % 2 else ("paired", f"nodes/web-{number}")
        journal.record_event(kind, resource, "R", str(number))

    def told(**wanted: Any) -> list[int]:
        return [int(event.message) for event in journal.events(**wanted)]

    assert told() == [6, 5, 4, 3, 2, 1]
    assert told(limit=2) == [6, 5]
    assert told(limit=2, before=5) == [4, 3]
    assert told(limit=2, after=2) == [3, 4]
    assert told(after=6) == []
    assert told(kind="paired") == [6, 4, 2]
    assert told(resource="services/prod/web") == [5, 3, 1]
    assert told(resource="services/") == [5, 3, 1]
    assert told(resource="nodes/web-2") == [2]
    assert told(resource="node") == []


def test_what_is_written_bears_the_trace_of_whoever_writes(journal: Journal) -> None:
    with trace(causes=("1" * 32, "2" * 32)) as id:
        each = journal.begin_pass("c" * 40)
        journal.begin_step(each, "services/prod/web", "deploy", "h", "new")
        journal.create_task("a", SYNC, "web-1")
        journal.record_event("failed")
    journal.record_event("paired")
    [made] = journal.passes()
    assert (made.trace, made.causes) == (id, ("1" * 32, "2" * 32))
    assert [step.trace for step in journal.steps(trace=id)] == [id]
    assert journal.steps(trace="3" * 32) == ()
    assert journal.tasks()[0].trace == id
    assert [event.trace for event in journal.events()] == ["", id]


def test_a_file_of_the_first_journals_is_migrated_with_all_that_is_in_it(path: Path) -> None:
    connection = sqlite3.connect(path)
    for migration in MIGRATIONS[:3]:
        connection.executescript(migration)
    connection.execute("PRAGMA user_version = 3")
    connection.execute("INSERT INTO passes (spec_revision, began_at) VALUES ('c', '2026-01-01')")
    connection.executemany(
        "INSERT INTO tasks (id, run, resource, node, state, created_at)"
        " VALUES (?, 'r', ?, 'n', 'SUCCESS', '')",
        [("sync", SYNC), ("command", "services/prod/web")],
    )
    connection.execute("INSERT INTO attempts (task, number, began_at) VALUES ('sync', 1, '2026-01-01')")
    connection.execute(
        "INSERT INTO events (at, kind, resource, reason, message) VALUES ('', 'k', '', '', '')"
    )
    connection.commit()
    connection.close()
    with pytest.raises(SettingsError, match="older trueup"):
        Journal(path, read_only=True)
    with Journal(path) as journal:
        assert {task.id: task.project for task in journal.tasks()} == {"sync": "site", "command": ""}
        assert [(attempt.log, attempt.details) for attempt in journal.tasks()[1].attempts] == [("", {})]
        assert [(each.trace, each.causes) for each in journal.passes()] == [("", ())]
        assert [event.kind for event in journal.events()] == ["k"]


def test_reading_leaves_the_file_as_it_is(path: Path, journal: Journal) -> None:
    run(journal, "a")
    with Journal(path, read_only=True) as reader:
        assert [task.id for task in reader.tasks()] == ["a"]
        run(journal, "b")
        assert [task.id for task in reader.tasks()] == ["b", "a"]
        with pytest.raises(JournalUnavailable, match="readonly"):
            reader.record_event("failed")
    missing = path.with_name("missing.sqlite")
    with pytest.raises(JournalUnavailable):
        Journal(missing, read_only=True)
    assert not missing.exists()


def test_a_damaged_file_is_not_set_aside_by_who_only_reads(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(JournalUnavailable, match="not a database"):
        Journal(path, read_only=True)
    assert [file.name for file in path.parent.iterdir()] == ["journal.sqlite"]


def test_requests_for_deploys_can_be_recorded_after_damage(path: Path) -> None:
    with Journal(path) as journal:
        journal.deploy_requests.record(REQUEST)
    path.write_bytes(b"damaged" * 1000)
    with Journal(path) as journal:
        assert journal.set_aside is not None
        assert journal.deploy_requests.by_nonce("nonce-1") is None
        journal.deploy_requests.record(REQUEST)
        assert journal.deploy_requests.by_id("id-1") is not None
        run(journal, "a")
        assert journal.task("a") is not None


def test_all_that_is_old_is_forgotten_but_what_is_under_way(journal: Journal, clock: Clock) -> None:
    step = journal.begin_step(journal.begin_pass("c" * 40), "services/prod/web", "deploy", "h", "new")
    journal.end_step(step, "succeeded", "ReconciliationSucceeded")
    run(journal, "done")
    journal.create_task("waiting", SYNC, "web-1")
    journal.record_event("failed")
    journal.deploy_requests.record(REQUEST)
    acted_on, waiting = (
        journal.deliveries.take(digest, "github", digest, "Pushed", "{}", "") for digest in ("a", "b")
    )
    assert acted_on and waiting
    journal.deliveries.mark_acted([acted_on.id])
    clock.now += journal_retention.KEEP_FOR + timedelta(days=1)
    new = journal.begin_pass("d" * 40)
    journal.record_event("recovered")
    journal.end_pass(new, "succeeded")
    assert [each.id for each in journal.passes()] == [new]
    assert [record.id for record in journal.unpublished()] == [step]
    assert [task.id for task in journal.tasks()] == ["waiting"]
    assert [event.kind for event in journal.events()] == ["recovered"]
    assert journal.deploy_requests.by_id("id-1") is None
    assert [delivery.id for delivery in journal.deliveries.newest()] == [waiting.id]


def test_only_the_newest_logs_are_kept(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_retention, "KEEP_LOGS", 2)
    each = journal.begin_pass("c" * 40)
    for number in range(4):
        step = journal.begin_step(each, f"services/prod/{number}", "deploy", "h", "new")
        journal.end_step(step, "succeeded", "ReconciliationSucceeded", log=f"log {number}")
        run(journal, str(number), log=f"log {number}")
    journal.end_pass(each, "succeeded")
    assert [step.log for step in journal.steps()] == ["log 3", "log 2", "", ""]
    kept = [task.attempts[0].log for number in range(4) if (task := journal.task(str(number)))]
    assert kept == ["", "", "log 2", "log 3"]
