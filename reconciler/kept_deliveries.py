"""Deliveries of webhooks, as the journal keeps them: on disk before they are answered."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconciler.journal_file import JournalFile
from reconciler.status.conditions import bounded

KEEP: Final = 10_000

_COLUMNS: Final = "id, sender, delivery, kind, said, trace, at, acted_at, repeats"


@dataclass(frozen=True, slots=True)
class KeptDelivery:
    """One delivery. Nothing of its body is kept but what `said` has, as JSON."""

    id: int
    sender: str
    """`github` or `infisical`."""
    delivery: str
    """The sender's own id of it, `X-GitHub-Delivery`; whoever sends may write anything there."""
    kind: str
    """What it is taken for: the name of a class in `reconciler.web.deliveries`."""
    said: str
    trace: str
    """Of everything that follows from it: the pass that answers it names it among its causes."""
    at: str
    acted_at: str = ""
    """Empty: what it asks for is still to be asked for, also after a restart."""
    repeats: int = 0
    """How often the same came again, under whatever id: nothing followed from that."""


def digest_of(sender: str, kind: str, body: bytes) -> str:
    """What makes two deliveries the same. Ids are not signed, and so do not count."""
    return hashlib.sha256(b"%s\0%s\0%s" % (sender.encode(), kind.encode(), body)).hexdigest()


class Deliveries:
    """The journal's table of them. Methods block, and raise JournalUnavailable."""

    def __init__(self, file: JournalFile, time: Callable[[], str]) -> None:
        self._file = file
        self._time = time

    def take(
        self, digest: str, sender: str, delivery: str, kind: str, said: str, trace: str
    ) -> KeptDelivery | None:
        """On disk when this returns; None for one that is there already. The oldest ones go."""
        now = self._time()
        row = (digest, sender, bounded(delivery, 100), kind, said, trace, now)
        with self._file.transaction() as cursor:
            cursor.execute(
                "INSERT INTO deliveries (digest, sender, delivery, kind, said, trace, at)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET repeats = repeats + 1"
                f" RETURNING {_COLUMNS}",
                row,
            )
            kept = KeptDelivery(*cursor.fetchone())
            cursor.execute(
                "DELETE FROM deliveries WHERE id <= (SELECT max(id) FROM deliveries) - ? AND acted_at != ''",
                (KEEP,),
            )
        return None if kept.repeats else kept

    def mark_acted(self, ids: Collection[int]) -> None:
        """What these ask for is asked for, and the pass at a start would make up for it."""
        now = self._time()
        with self._file.transaction() as cursor:
            cursor.executemany(
                "UPDATE deliveries SET acted_at = ? WHERE id = ?", [(now, id) for id in sorted(ids)]
            )

    def open(self) -> tuple[KeptDelivery, ...]:
        """What an earlier process took and did not act on, the oldest first."""
        return self._select("WHERE acted_at = '' ORDER BY id", ())

    def newest(self, limit: int = 50, *, before: int = 0) -> tuple[KeptDelivery, ...]:
        """The newest ones first; `before`: those with a smaller id."""
        return self._select("WHERE (?1 = 0 OR id < ?1) ORDER BY id DESC LIMIT ?2", (before, limit))

    def _select(self, condition: str, values: Sequence[object]) -> tuple[KeptDelivery, ...]:
        rows: Sequence[Sequence[Any]] = self._file.query(
            f"SELECT {_COLUMNS} FROM deliveries {condition}",  # noqa: S608 - both are ours
            values,
        )
        return tuple(KeptDelivery(*row) for row in rows)
