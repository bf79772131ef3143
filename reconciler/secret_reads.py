"""Who got which secret, when: what the journal keeps of it. Names and provenance, never values."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from reconciler.journal_file import JournalFile
from reconciler.secrets.values import SecretValue
from reconciler.status.conditions import bounded

KEEP_READS: Final = 20_000
MAX_KEYS: Final = 64 << 10
"""Characters of the names of one read; a longer list is cut, and says so."""

CUT: Final = "…"


class ReadFor(StrEnum):
    """What the values went out for."""

    DEPLOY = "deploy"
    RENDER = "render"
    PUSH = "push"
    EXPORT = "export"
    LIST = "list"
    SYNC = "sync"
    DIFF = "diff"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class SecretRead:
    """Keys of one source that somebody got at once.

    `who` is a resource's id (a rendered file's path after it), `user NAME` for a command, or `primary`.
    `served` says how: the kind of source that answered, `cache`, `stale` or `fallback`.
    """

    who: str
    purpose: str
    source: str
    environment: str
    keys: tuple[str, ...]
    served: str
    at: str = field(default="", compare=False)
    """UTC in ISO 8601; the journal's own time."""


def reads_of(who: str, purpose: ReadFor, values: Iterable[SecretValue | str]) -> tuple[SecretRead, ...]:
    """One read for each source, environment and way of serving; texts that are no secrets are left out."""
    keys: dict[tuple[str, str, str], set[str]] = {}
    for value in values:
        if isinstance(value, SecretValue):
            keys.setdefault((value.origin, value.environment, _served(value)), set()).add(value.key)
    return tuple(
        SecretRead(who, purpose.value, source, environment, tuple(sorted(names)), served)
        for (source, environment, served), names in sorted(keys.items())
    )


def _served(value: SecretValue) -> str:
    if value.is_stale:
        return "stale"
    return "fallback" if value.is_fallback else value.source


def insert_reads(cursor: sqlite3.Cursor, at: str, reads: Iterable[SecretRead]) -> None:
    """Inside a transaction of the journal, so that a step and what it got are on disk together."""
    rows = [
        (at, bounded(read.who), read.purpose, read.source, read.environment, _names(read.keys), read.served)
        for read in reads
    ]
    if rows:
        cursor.executemany(
            "INSERT INTO secret_reads (at, who, purpose, source, environment, keys, served)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        cursor.execute(
            "DELETE FROM secret_reads WHERE id <= (SELECT max(id) FROM secret_reads) - ?", (KEEP_READS,)
        )


class SecretReads:
    """The journal's table of them. Methods block, and raise JournalUnavailable."""

    def __init__(self, file: JournalFile, time: Callable[[], str]) -> None:
        self._file = file
        self._time = time

    def record(self, reads: Iterable[SecretRead]) -> None:
        """On disk when this returns."""
        with self._file.transaction() as cursor:
            insert_reads(cursor, self._time(), reads)

    def recent(self, name: str | None = None, limit: int = 50) -> tuple[SecretRead, ...]:
        """The newest, newest first; with a name those of that source, or of keys of that name."""
        rows = self._file.query(
            "SELECT who, purpose, source, environment, keys, served, at FROM secret_reads"
            " WHERE ?1 IS NULL OR source = ?1 OR EXISTS (SELECT 1 FROM json_each(keys) WHERE value = ?1)"
            " ORDER BY id DESC LIMIT ?2",
            (name, limit),
        )
        return tuple(_read(row) for row in rows)

    def names(self) -> set[str]:
        """All sources and keys that somebody got."""
        rows = self._file.query(
            "SELECT source FROM secret_reads"
            " UNION SELECT value FROM secret_reads, json_each(secret_reads.keys)"
        )
        return {str(name) for (name,) in rows}


def _names(keys: Sequence[str]) -> str:
    text = json.dumps(keys, ensure_ascii=False)
    if len(text) <= MAX_KEYS:
        return text
    kept, size = [], 0
    for key in keys:
        size += len(key) + 4
        if size > MAX_KEYS // 2:
            break
        kept.append(key)
    return json.dumps([*kept, CUT], ensure_ascii=False)


def _read(row: Sequence[Any]) -> SecretRead:
    who, purpose, source, environment, keys, served, at = row
    return SecretRead(who, purpose, source, environment, tuple(json.loads(keys)), served, at)
