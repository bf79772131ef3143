"""Notifications, as the journal keeps them: what was told, and messages until they are sent or given up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final

import msgspec

from reconciler.journal_file import JournalFile
from reconciler.journal_records import MAX_MESSAGE, as_text
from reconciler.notifications.news import Known
from reconciler.notifications.wording import Draft, Severity
from reconciler.spec.model import Credential
from reconciler.status.conditions import bounded
from reconciler.tracing import current_trace

KEEP: Final = 1_000
MAX_WAITING: Final = 100
"""Messages of one channel that are not sent yet; one more, and the oldest is given up."""
MAX_AGE: Final = timedelta(hours=24)
"""After which a message is given up: what it tells is no news any more."""

_COLUMNS: Final = "id, key, channel, severity, title, body, trace, at, ended_at, outcome, problem"


@dataclass(frozen=True, slots=True)
class KeptNotification:
    """One message to one channel."""

    id: int
    key: str
    """Stands in the message: one that is sent twice, as its sender was killed in between, has it twice."""
    channel: str
    """Where the address is found, as JSON. The address itself is a secret, and kept nowhere."""
    severity: Severity
    title: str
    body: str
    trace: str
    at: str
    ended_at: str = ""
    outcome: str = ""
    """`sent` or `given_up`; empty: neither yet."""
    problem: str = ""
    """Why it was given up."""


@dataclass(frozen=True, slots=True)
class Told:
    """What people know, and the epoch of the lease in which they were told: in a later one that is not ours
    somebody else may have told them more."""

    epoch: int
    known: Known


def channel_name(channel: Credential) -> str:
    """A channel as the journal names it."""
    return msgspec.json.encode(channel).decode()


class Notifications:
    """The journal's tables of them. Methods block, and raise JournalUnavailable."""

    def __init__(self, file: JournalFile, now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now

    def told(self) -> Told | None:
        """None: nothing was told from here yet."""
        rows = self._file.query("SELECT epoch, known FROM told WHERE id = 1")
        if not rows:
            return None
        [(epoch, known)] = rows
        return Told(epoch, msgspec.json.decode(known, type=Known))

    def tell(self, told: Told, drafts: Sequence[Draft] = ()) -> None:
        """Both at once: what people know from now on, and the messages that tell them."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO told (id, epoch, known) VALUES (1, ?1, ?2)"
                " ON CONFLICT (id) DO UPDATE SET epoch = ?1, known = ?2",
                (told.epoch, msgspec.json.encode(told.known).decode()),
            )
            for draft in drafts:
                channel = channel_name(draft.channel)
                values = (token_hex(6), channel, draft.severity, draft.title, draft.body)
                cursor.execute(
                    "INSERT INTO notifications (key, channel, severity, title, body, trace, at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*values, current_trace(), as_text(self._now())),
                )
            cursor.execute(
                "DELETE FROM notifications WHERE id <= (SELECT max(id) FROM notifications) - ?"
                " AND outcome != ''",
                (KEEP,),
            )

    def channels(self) -> tuple[str, ...]:
        """Those that messages wait for."""
        rows = self._file.query("SELECT DISTINCT channel FROM notifications WHERE outcome = ''")
        return tuple(channel for (channel,) in rows)

    def waiting(self, channel: str = "") -> tuple[KeptNotification, ...]:
        """Messages to a channel, or to all, that were neither sent nor given up, the oldest first."""
        return self._select("WHERE outcome = '' AND (?1 = '' OR channel = ?1) ORDER BY id", (channel,))

    def count_waiting(self) -> int:
        [(count,)] = self._file.query("SELECT count(*) FROM notifications WHERE outcome = ''")
        return int(count)

    def newest(self, limit: int = 50) -> tuple[KeptNotification, ...]:
        return self._select("ORDER BY id DESC LIMIT ?", (limit,))

    def is_too_old(self, message: KeptNotification) -> bool:
        return message.at < as_text(self._now() - MAX_AGE)

    def end(self, message: KeptNotification, outcome: str, problem: str = "") -> None:
        """A message was sent, or is given up; it is not looked at any more."""
        with self._file.transaction() as cursor:
            cursor.execute(
                "UPDATE notifications SET ended_at = ?, outcome = ?, problem = ? WHERE id = ?",
                (as_text(self._now()), outcome, bounded(problem, MAX_MESSAGE), message.id),
            )

    def _select(self, condition: str, values: Sequence[object]) -> tuple[KeptNotification, ...]:
        rows: Sequence[Sequence[Any]] = self._file.query(
            f"SELECT {_COLUMNS} FROM notifications {condition}",  # noqa: S608 - both are ours
            values,
        )
        return tuple(KeptNotification(*row) for row in rows)
