"""The journal's events. Methods block, and raise JournalUnavailable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.journal_records import MAX_MESSAGE, EventRecord, Tables
from reconciler.status.conditions import bounded
from reconciler.tracing import current_trace


class Event(Protocol):
    """What happened; `status.transitions.Transition` for one."""

    @property
    def kind(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    kind: str
    resource: str = ""
    reason: str = ""
    message: str = ""


class Events(Tables):
    def record_event(self, kind: str, resource: str = "", reason: str = "", message: str = "") -> None:
        """Something that people may want to read about later: a transition, a pairing, a refusal."""
        self.record_events([NewEvent(kind, resource, reason, message)])

    def record_events(self, events: Sequence[Event]) -> None:
        """Several at once: one flush to disk for all of them."""
        if not events:
            return
        at, trace = self._time(), current_trace()
        rows = [
            (at, each.kind, each.resource, bounded(each.reason), bounded(each.message, MAX_MESSAGE), trace)
            for each in events
        ]
        with self._file.transaction() as cursor:
            cursor.executemany(
                "INSERT INTO events (at, kind, resource, reason, message, trace) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )

    def events(
        self, limit: int = 50, *, after: int = 0, before: int = 0, kind: str = "", resource: str = ""
    ) -> tuple[EventRecord, ...]:
        """Events, newest first; with `after`, an event's id, the ones that follow it next, oldest first.

        `resource`: of that one and of what is below it, such as `services/production` or `nodes`.
        """
        rows = self._file.query(
            "SELECT id, at, kind, resource, reason, message, trace FROM events"
            " WHERE id > ?1 AND (?2 = 0 OR id < ?2) AND (?3 = '' OR kind = ?3) AND (?4 = '' OR resource = ?4"
            " OR substr(resource, 1, length(?4) + 1) = ?4 || '/')"
            " ORDER BY CASE WHEN ?1 THEN id ELSE -id END LIMIT ?5",
            (after, before, kind, resource.strip("/"), limit),
        )
        return tuple(EventRecord(*row) for row in rows)
