"""The journal: what was begun, what ended and what the status branch still has to be told.

One SQLite file in the state directory. A step's start is on disk before it acts and its end before
anything builds on it, so that a successor of a killed primary knows what was under way
(`interrupted`) and which results were not published yet (`unpublished`). A lost journal loses history
and may repeat a step: a file that is damaged is set aside and a new one made.

Methods block for a few milliseconds (a flush to disk) and may be called from any thread. Callers give
no secrets: results and messages are stored as given, bounded in size.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from reconciler.deploy_requests import DeployRequests
from reconciler.hashing import Inputs
from reconciler.journal_file import JournalFile
from reconciler.secret_reads import SecretRead, SecretReads, insert_reads
from reconciler.status.conditions import bounded

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
StepOutcome = Literal["succeeded", "failed", "cancelled"]
TaskState = Literal["PENDING", "RUNNING", "SUCCESS", "FAILED", "RETRYING"]

MAX_MESSAGE: Final = 4096
MAX_JSON: Final = 256 << 10
"""Bytes of one result or of one step's inputs as JSON."""
KEEP_PASSES: Final = 500
KEEP_TASKS: Final = 5_000
KEEP_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass; `outcome` is empty until it ended. Times are UTC in ISO 8601."""

    id: int
    spec_revision: str
    began_at: str
    ended_at: str
    outcome: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step. `outcome` is empty while it has not ended; `result` is what its executor found out."""

    id: int
    pass_id: int
    resource: str
    action: str
    config_hash: str
    reason: str
    revision: str
    began_at: str
    ended_at: str = ""
    outcome: str = ""
    end_reason: str = ""
    message: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    result: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    number: int
    began_at: str
    ended_at: str
    state: TaskState
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One project to one node."""

    id: str
    resource: str
    node: str
    state: TaskState
    created_at: str
    attempts: tuple[AttemptRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class EventRecord:
    id: int
    at: str
    kind: str
    resource: str
    reason: str
    message: str


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """Opens or makes the file at `path`, 0600. Raises JournalUnavailable where that cannot be done.

    Use as a context manager, or call `close`.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        # Which process began a step: what another one began and did not end was interrupted.
        self._run = uuid.uuid4().hex
        self._file = JournalFile(path)
        self.secret_reads = SecretReads(self._file, self._time)
        self.deploy_requests = DeployRequests(self._file, self._time)

    @property
    def set_aside(self) -> Path | None:
        """Where the damaged file went that this one replaces, if there was one."""
        return self._file.set_aside

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- passes and steps ----------------------------------------------------------------------

    def begin_pass(self, spec_revision: str) -> int:
        """The id of a new pass."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO passes (spec_revision, began_at) VALUES (?, ?)", (spec_revision, self._time())
            )
            return _new_id(cursor.lastrowid)

    def end_pass(self, id: int, outcome: str) -> None:
        """Marks a pass as ended, and forgets what is older than the newest passes, tasks and events."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE passes SET ended_at = ?, outcome = ? WHERE id = ?",
                (self._time(), bounded(outcome), id),
            )
            oldest = id - KEEP_PASSES
            cursor.execute("DELETE FROM passes WHERE id <= ?", (oldest,))
            # The last step of each resource stays: it may be unpublished or interrupted, however old.
            cursor.execute(
                "DELETE FROM steps WHERE pass_id <= ?"
                " AND id NOT IN (SELECT max(id) FROM steps GROUP BY resource)",
                (oldest,),
            )
            cursor.execute(
                "DELETE FROM tasks WHERE rowid <= (SELECT max(rowid) FROM tasks) - ?", (KEEP_TASKS,)
            )
            cursor.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEEP_EVENTS,))

    def passes(self, limit: int = 20) -> tuple[PassRecord, ...]:
        """The newest passes, newest first."""
        rows = self._file.query(
            "SELECT id, spec_revision, began_at, ended_at, outcome FROM passes ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return tuple(PassRecord(*row) for row in rows)

    def begin_step(
        self,
        pass_id: int,
        resource: str,
        action: str,
        config_hash: str,
        reason: str,
        *,
        revision: str = "",
        inputs: Inputs | None = None,
        reads: Sequence[SecretRead] = (),
    ) -> int:
        """The id of a step that may act once this returns: its start is on disk, with the secrets it gets.

        `config_hash`, `revision` and `inputs` are what the step will establish.
        """
        inputs = inputs or Inputs()
        given = {"public": dict(inputs.public), "keyed": dict(inputs.keyed)}
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO steps (pass_id, run, resource, action, config_hash, reason, revision, inputs,"
                " began_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    pass_id,
                    self._run,
                    resource,
                    action,
                    config_hash,
                    bounded(reason, MAX_MESSAGE),
                    revision,
                    _to_json(given) or "{}",
                    self._time(),
                ),
            )
            id = _new_id(cursor.lastrowid)
            insert_reads(cursor, self._time(), reads)
            return id

    def end_step(
        self,
        id: int,
        outcome: StepOutcome,
        reason: str,
        message: str = "",
        result: Mapping[str, Json] | None = None,
    ) -> None:
        """Records how a step ended; on disk when this returns. A second end of a step changes nothing."""
        kept = _to_json(dict(result or {}))
        # A result that was not kept cannot be published by a successor, which then repeats the step.
        lost = int(kept is None)
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE steps SET ended_at = ?, outcome = ?, end_reason = ?, message = ?, result = ?,"
                " published = ? WHERE id = ? AND outcome = ''",
                (
                    self._time(),
                    outcome,
                    bounded(reason),
                    bounded(message, MAX_MESSAGE),
                    kept or "{}",
                    lost,
                    id,
                ),
            )

    def interrupted(self) -> tuple[StepRecord, ...]:
        """Steps that another process began and never ended, or that failed and that the status branch does
        not tell yet, unless their resource succeeded since.

        Nothing is known of what they established, whatever a status file says: they are to be done again.
        """
        rows = self._file.query(
            f"SELECT {_STEP} FROM steps AS s WHERE"  # noqa: S608
            " (outcome = '' AND run <> ? OR outcome = 'failed' AND published = 0) AND NOT EXISTS"
            " (SELECT 1 FROM steps AS later WHERE later.resource = s.resource AND later.id > s.id"
            " AND later.outcome = 'succeeded') ORDER BY id",
            (self._run,),
        )
        return tuple(_step(row) for row in rows)

    def unpublished(self) -> tuple[StepRecord, ...]:
        """Steps that succeeded and that the status branch does not tell yet, in the order they began."""
        rows = self._file.query(
            f"SELECT {_STEP} FROM steps WHERE outcome = 'succeeded' AND published = 0 ORDER BY id"  # noqa: S608
        )
        return tuple(_step(row) for row in rows)

    def mark_published(self, steps: Sequence[int]) -> None:
        """The status branch tells the results of these steps now."""
        if steps:
            with self._file.transaction() as cursor:
                cursor.executemany("UPDATE steps SET published = 1 WHERE id = ?", [(id,) for id in steps])

    def steps(self, resource: str | None = None, limit: int = 50) -> tuple[StepRecord, ...]:
        """The newest steps, of one resource or of all, newest first."""
        rows = self._file.query(
            f"SELECT {_STEP} FROM steps WHERE ? IS NULL OR resource = ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            (resource, resource, limit),
        )
        return tuple(_step(row) for row in rows)

    # --- tasks ---------------------------------------------------------------------------------

    def create_task(self, id: str, resource: str, node: str) -> None:
        """A task that waits for its turn: PENDING."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO tasks (id, run, resource, node, state, created_at)"
                " VALUES (?, ?, ?, ?, 'PENDING', ?)",
                (id, self._run, resource, node, self._time()),
            )

    def begin_attempt(self, task: str) -> int:
        """The number, from 1, of a new attempt; the task is RUNNING."""
        with self._file.transaction() as cursor:
            cursor.execute("UPDATE tasks SET state = 'RUNNING', run = ? WHERE id = ?", (self._run, task))
            cursor.execute(
                "INSERT INTO attempts (task, number, began_at) SELECT ?, coalesce(max(number), 0) + 1, ?"
                " FROM attempts WHERE task = ? RETURNING number",
                (task, self._time(), task),
            )
            number: int = cursor.fetchone()[0]
            return number

    def end_attempt(
        self,
        task: str,
        number: int,
        state: Literal["SUCCESS", "FAILED", "RETRYING"],
        reason: str = "",
        message: str = "",
    ) -> None:
        """Ends an attempt; the task takes over its state. RETRYING: it failed and there will be another."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE attempts SET ended_at = ?, state = ?, reason = ?, message = ?"
                " WHERE task = ? AND number = ?",
                (self._time(), state, bounded(reason), bounded(message, MAX_MESSAGE), task, number),
            )
            cursor.execute("UPDATE tasks SET state = ? WHERE id = ?", (state, task))

    def fail_interrupted_tasks(self) -> int:
        """FAILED, reason Interrupted: all tasks that another process left unfinished. Returns how many."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE attempts SET ended_at = ?, state = 'FAILED', reason = 'Interrupted'"
                " WHERE ended_at = '' AND task IN (SELECT id FROM tasks WHERE run <> ?)",
                (self._time(), self._run),
            )
            cursor.execute(
                "UPDATE tasks SET state = 'FAILED'"
                " WHERE state IN ('PENDING', 'RUNNING', 'RETRYING') AND run <> ?",
                (self._run,),
            )
            return cursor.rowcount

    def tasks(self, limit: int = 50) -> tuple[TaskRecord, ...]:
        """The newest tasks with their attempts, newest first."""
        rows = self._file.query(
            "SELECT id, resource, node, state, created_at FROM tasks ORDER BY rowid DESC LIMIT ?", (limit,)
        )
        return tuple(replace(TaskRecord(*row), attempts=self._attempts(row[0])) for row in rows)

    def _attempts(self, task: str) -> tuple[AttemptRecord, ...]:
        rows = self._file.query(
            "SELECT number, began_at, ended_at, state, reason, message FROM attempts"
            " WHERE task = ? ORDER BY number",
            (task,),
        )
        return tuple(AttemptRecord(*row) for row in rows)

    # --- events --------------------------------------------------------------------------------

    def record_event(self, kind: str, resource: str = "", reason: str = "", message: str = "") -> None:
        """Something that people may want to read about later: a transition, a pairing, a refusal."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO events (at, kind, resource, reason, message) VALUES (?, ?, ?, ?, ?)",
                (self._time(), kind, resource, bounded(reason), bounded(message, MAX_MESSAGE)),
            )

    def recent_events(self, limit: int = 50) -> tuple[EventRecord, ...]:
        """The newest events, newest first."""
        rows = self._file.query(
            "SELECT id, at, kind, resource, reason, message FROM events ORDER BY id DESC LIMIT ?", (limit,)
        )
        return tuple(EventRecord(*row) for row in rows)

    # --- secrets -------------------------------------------------------------------------------

    def record_secret_reads(self, reads: Sequence[SecretRead]) -> None:
        """Who got which secrets, outside of a step; on disk when this returns."""
        self.secret_reads.record(reads)

    def _time(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")


_STEP: Final = (
    "id, pass_id, resource, action, config_hash, reason, revision, began_at, ended_at, outcome, end_reason,"
    " message, inputs, result"
)


def _step(row: Sequence[Any]) -> StepRecord:
    *plain, inputs, result = row
    given = json.loads(inputs)
    return replace(
        StepRecord(*plain),
        inputs=Inputs(given.get("public", {}), given.get("keyed", {})),
        result=json.loads(result),
    )


def _new_id(id: int | None) -> int:
    assert id is not None  # an INSERT into a table with an integer key always gives one
    return id


def _to_json(value: Mapping[str, Json]) -> str | None:
    """JSON of a mapping; None for one that is too large to keep."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= MAX_JSON else None
