"""Requests for deploys that came over HTTP, as the journal keeps them: what each became, to follow it."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from reconciler.journal_file import JournalFile

KEEP: Final = 10_000

_COLUMNS: Final = "id, nonce, digest, environment, unit, tag, commit_id, kind, decision, said_by, at"


@dataclass(frozen=True, slots=True)
class AskedDeploy:
    """One request. `id` cannot be guessed: whoever has it may see what became of it."""

    id: str
    nonce: str
    digest: str
    """Of its body."""
    environment: str
    unit: str
    tag: str
    """The one that was asked for; of a promotion that of the environment promoted from."""
    commit: str
    kind: str
    """The kind of record it became; `follow`: the environment takes the tag by itself."""
    decision: int
    """The number of that record; 0: none was made."""
    by: str
    at: str = ""


def new_id() -> str:
    return secrets.token_hex(16)


class DeployRequests:
    """The journal's table of them. Methods block, and raise JournalUnavailable."""

    def __init__(self, file: JournalFile, time: Callable[[], str]) -> None:
        self._file = file
        self._time = time

    def record(self, request: AskedDeploy) -> None:
        """On disk when this returns; the oldest ones go."""
        row = (*astuple(request)[:-1], self._time())
        with self._file.transaction() as cursor:
            cursor.execute(
                f"INSERT INTO deploy_requests ({_COLUMNS})"  # noqa: S608 - the columns are ours
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            cursor.execute(
                "DELETE FROM deploy_requests WHERE rowid <= (SELECT max(rowid) FROM deploy_requests) - ?",
                (KEEP,),
            )

    def by_id(self, id: str) -> AskedDeploy | None:
        return self._one("id = ?", id)

    def by_nonce(self, nonce: str) -> AskedDeploy | None:
        return self._one("nonce = ?", nonce) if nonce else None

    def _one(self, condition: str, value: str) -> AskedDeploy | None:
        rows: Sequence[Sequence[Any]] = self._file.query(
            f"SELECT {_COLUMNS} FROM deploy_requests WHERE {condition} LIMIT 1",  # noqa: S608 - both are ours
            (value,),
        )
        return AskedDeploy(*rows[0]) if rows else None
