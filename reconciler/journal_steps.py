"""The journal's passes and steps. Methods block, and raise JournalUnavailable."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from reconciler.hashing import Inputs
from reconciler.journal_records import (
    MAX_MESSAGE,
    Json,
    PassRecord,
    StepOutcome,
    StepRecord,
    Tables,
    excerpt,
    to_json,
)
from reconciler.journal_retention import forget_old
from reconciler.secret_reads import SecretRead, insert_reads
from reconciler.status.conditions import bounded
from reconciler.tracing import current_causes, current_trace


class PassesAndSteps(Tables):
    @property
    def run(self) -> str:
        """Of this process and this opening of the file."""
        return self._run

    def begin_pass(self, spec_revision: str) -> int:
        """The id of a new pass."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO passes (spec_revision, began_at, trace, causes) VALUES (?, ?, ?, ?)",
                (spec_revision, self._time(), current_trace(), json.dumps(current_causes())),
            )
            return new_id(cursor.lastrowid)

    def end_pass(self, id: int, outcome: str) -> None:
        """Marks a pass as ended, and forgets what is old by now."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE passes SET ended_at = ?, outcome = ? WHERE id = ?",
                (self._time(), bounded(outcome), id),
            )
            forget_old(cursor, self._now())

    def passes(self, limit: int = 20) -> tuple[PassRecord, ...]:
        """The newest passes, newest first."""
        rows = self._file.query(
            "SELECT id, spec_revision, began_at, ended_at, outcome, trace, causes FROM passes"
            " ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return tuple(replace(PassRecord(*plain), causes=tuple(json.loads(causes))) for *plain, causes in rows)

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
        known: str = "",
        place: Mapping[str, Json] | None = None,
    ) -> int:
        """The id of a step that may act once this returns: its start is on disk, with the secrets it gets.

        `config_hash`, `revision` and `inputs` are what the step will establish, `known` is what was there.
        `place`: where that will be, as far as its result is going to say it; so it is known of a step, too,
        that never ends.
        """
        inputs = inputs or Inputs()
        given = {"public": dict(inputs.public), "keyed": dict(inputs.keyed)}
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO steps (pass_id, run, resource, action, config_hash, reason, revision, inputs,"
                " began_at, trace, known, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    pass_id,
                    self._run,
                    resource,
                    action,
                    config_hash,
                    bounded(reason, MAX_MESSAGE),
                    revision,
                    to_json(given) or "{}",
                    self._time(),
                    current_trace(),
                    known,
                    to_json(dict(place or {})) or "{}",
                ),
            )
            id = new_id(cursor.lastrowid)
            insert_reads(cursor, self._time(), reads)
            return id

    def end_step(
        self,
        id: int,
        outcome: StepOutcome,
        reason: str,
        message: str = "",
        result: Mapping[str, Json] | None = None,
        log: str = "",
    ) -> None:
        """Records how a step ended; on disk when this returns. A second end of a step changes nothing.

        `log`: what it printed, masked; an excerpt is kept.
        """
        kept = to_json(dict(result or {}))
        # A result that was not kept cannot be published by a successor, which then repeats the step.
        lost = int(kept is None)
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE steps SET ended_at = ?, outcome = ?, end_reason = ?, message = ?, result = ?,"
                " published = ?, log = ? WHERE id = ? AND outcome = ''",
                (
                    self._time(),
                    outcome,
                    bounded(reason),
                    bounded(message, MAX_MESSAGE),
                    kept or "{}",
                    lost,
                    excerpt(log),
                    id,
                ),
            )

    def interrupted(self, under_way: Collection[int] = ()) -> tuple[StepRecord, ...]:
        """Steps that were begun, never ended and are not `under_way` now, or that failed and that the status
        branch does not tell yet, unless their resource succeeded since.

        Nothing is known of what they established, whatever a status file says: they are to be done again.
        """
        rows = self._file.query(
            f"SELECT {_STEP} FROM steps AS s WHERE"  # noqa: S608
            " (outcome = '' OR outcome = 'failed' AND published = 0) AND NOT EXISTS"
            " (SELECT 1 FROM steps AS later WHERE later.resource = s.resource AND later.id > s.id"
            " AND later.outcome = 'succeeded') ORDER BY id"
        )
        return tuple(step for step in map(_step, rows) if step.id not in under_way)

    def unpublished(self) -> tuple[StepRecord, ...]:
        """Steps that succeeded and that the status branch does not tell yet, in the order they began."""
        rows = self._file.query(
            f"SELECT {_STEP} FROM steps WHERE outcome = 'succeeded' AND published = 0 ORDER BY id"  # noqa: S608
        )
        return tuple(_step(row) for row in rows)

    def mark_published(self, steps: Sequence[int]) -> None:
        """The status branch tells the results of these steps now, or never; then they may not have ended."""
        if steps:
            with self._file.transaction() as cursor:
                cursor.executemany(
                    "UPDATE steps SET published = 1,"
                    " outcome = CASE outcome WHEN '' THEN 'cancelled' ELSE outcome END WHERE id = ?",
                    [(id,) for id in steps],
                )

    def steps(
        self, resource: str | None = None, limit: int = 50, *, trace: str = "", in_short: bool = False
    ) -> tuple[StepRecord, ...]:
        """The newest steps, of one resource or of all, newest first; with `trace` those of one request.

        `in_short`: without log, inputs and result, which may be large.
        """
        columns = _STEP_IN_SHORT if in_short else _STEP
        rows = self._file.query(
            f"SELECT {columns} FROM steps WHERE (?1 IS NULL OR resource = ?1)"  # noqa: S608
            " AND (?2 = '' OR trace = ?2) ORDER BY id DESC LIMIT ?3",
            (resource, trace, limit),
        )
        return tuple(_step(row) for row in rows)


_STEP_ALONE: Final = (
    "id, pass_id, resource, action, config_hash, reason, revision, began_at, ended_at, outcome, end_reason,"
    " message, trace, run, known"
)
_STEP: Final = f"{_STEP_ALONE}, log, inputs, result"
_STEP_IN_SHORT: Final = f"{_STEP_ALONE}, '', '{{}}', '{{}}'"


def _step(row: Sequence[Any]) -> StepRecord:
    *plain, inputs, result = row
    given = json.loads(inputs)
    return replace(
        StepRecord(*plain),
        inputs=Inputs(given.get("public", {}), given.get("keyed", {})),
        result=json.loads(result),
    )


def new_id(id: int | None) -> int:
    assert id is not None  # an INSERT into a table with an integer key always gives one
    return id
