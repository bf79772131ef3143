"""The journal's events. Methods block, and raise JournalUnavailable."""

from reconciler.journal_records import MAX_MESSAGE, EventRecord, Tables
from reconciler.status.conditions import bounded
from reconciler.tracing import current_trace


class Events(Tables):
    def record_event(self, kind: str, resource: str = "", reason: str = "", message: str = "") -> None:
        """Something that people may want to read about later: a transition, a pairing, a refusal."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO events (at, kind, resource, reason, message, trace) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self._time(),
                    kind,
                    resource,
                    bounded(reason),
                    bounded(message, MAX_MESSAGE),
                    current_trace(),
                ),
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
