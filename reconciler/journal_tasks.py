"""The journal's tasks with their attempts. Methods block, and raise JournalUnavailable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from reconciler.identity import is_installation
from reconciler.journal_records import (
    MAX_MESSAGE,
    AttemptRecord,
    Json,
    Tables,
    TaskRecord,
    excerpt,
    to_json,
)
from reconciler.status.conditions import bounded
from reconciler.tracing import current_trace


class Tasks(Tables):
    def create_task(self, id: str, resource: str, node: str, *, project: str = "") -> None:
        """A task that waits for its turn: PENDING."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO tasks (id, run, resource, node, state, created_at, project, trace)"
                " VALUES (?, ?, ?, ?, 'PENDING', ?, ?, ?)",
                (id, self._run, resource, node, self._time(), project, current_trace()),
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
        *,
        log: str = "",
        details: Mapping[str, Json] | None = None,
    ) -> None:
        """Ends an attempt; the task takes over its state. RETRYING: it failed and there will be another.

        `log`: what its commands printed, masked; an excerpt is kept. `details`: what the agent counted.
        """
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE attempts SET ended_at = ?, state = ?, reason = ?, message = ?, log = ?, details = ?"
                " WHERE task = ? AND number = ?",
                (
                    self._time(),
                    state,
                    bounded(reason),
                    bounded(message, MAX_MESSAGE),
                    excerpt(log),
                    to_json(details or {}) or "{}",
                    task,
                    number,
                ),
            )
            cursor.execute("UPDATE tasks SET state = ? WHERE id = ?", (state, task))

    def fail_interrupted_tasks(
        self, is_under_way: Callable[[str], bool], *, installations_alone: bool = False
    ) -> int:
        """FAILED, reason Interrupted: all tasks that another process left unfinished. Returns how many.

        An installation is at work beside this process as long as `is_under_way` says so of its id.
        """
        with self._file.transaction() as cursor:
            cursor.execute(
                "SELECT id, resource FROM tasks"
                " WHERE state IN ('PENDING', 'RUNNING', 'RETRYING') AND run <> ?",
                (self._run,),
            )
            left = [
                (id,)
                for id, resource in cursor.fetchall()
                if (not is_under_way(id) if is_installation(resource) else not installations_alone)
            ]
            cursor.executemany(
                "UPDATE attempts SET ended_at = ?, state = 'FAILED', reason = 'Interrupted'"
                " WHERE ended_at = '' AND task = ?",
                [(self._time(), id) for (id,) in left],
            )
            cursor.executemany("UPDATE tasks SET state = 'FAILED' WHERE id = ?", left)
            return len(left)

    def tasks(
        self,
        limit: int = 50,
        *,
        project: str = "",
        node: str = "",
        state: str = "",
        before: str = "",
        prefix: str = "",
        resource: str = "",
        with_logs: bool = False,
    ) -> tuple[TaskRecord, ...]:
        """The newest tasks with their attempts, newest first.

        `before`: the id of a task, for those that are older than it; of one that is forgotten, none are.
        `prefix`: what the id begins with. `resource`: of that one and of what is below it.
        """
        rows = self._file.query(
            f"SELECT {_TASK} FROM tasks"  # noqa: S608 - the columns are ours
            " WHERE (?1 = '' OR project = ?1) AND (?2 = '' OR node = ?2) AND (?3 = '' OR state = ?3)"
            " AND (?4 = '' OR rowid < (SELECT rowid FROM tasks WHERE id = ?4))"
            " AND substr(id, 1, length(?6)) = ?6 AND (?7 = '' OR resource = ?7"
            " OR substr(resource, 1, length(?7) + 1) = ?7 || '/')"
            " ORDER BY rowid DESC LIMIT ?5",
            (project, node, state, before, limit, prefix, resource.strip("/")),
        )
        return tuple(self._task(row, with_logs=with_logs) for row in rows)

    def task(self, id: str) -> TaskRecord | None:
        """One task with its attempts and what they printed."""
        rows = self._file.query(f"SELECT {_TASK} FROM tasks WHERE id = ?", (id,))  # noqa: S608 - as above
        return self._task(rows[0], with_logs=True) if rows else None

    def _task(self, row: Sequence[Any], *, with_logs: bool) -> TaskRecord:
        attempts = self._file.query(
            "SELECT number, began_at, ended_at, state, reason, message, details,"
            " CASE WHEN ? THEN log ELSE '' END FROM attempts WHERE task = ? ORDER BY number",
            (with_logs, row[0]),
        )
        return replace(
            TaskRecord(*row),
            attempts=tuple(
                replace(AttemptRecord(*plain), details=json.loads(details), log=log)
                for *plain, details, log in attempts
            ),
        )


_TASK: Final = "id, resource, node, state, created_at, project, trace"
