"""What the journal tells: its records, and how much of a text it keeps. Times are UTC in ISO 8601."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from reconciler.deploy.output import Excerpt
from reconciler.hashing import Inputs
from reconciler.journal_file import JournalFile

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
StepOutcome = Literal["succeeded", "failed", "cancelled"]
TaskState = Literal["PENDING", "RUNNING", "SUCCESS", "FAILED", "RETRYING"]

MAX_MESSAGE: Final = 4096
MAX_JSON: Final = 256 << 10
"""Bytes of one result or of one step's inputs as JSON."""
MAX_LOG: Final = 16 << 10
"""Characters of what a step or an attempt printed, half from its beginning and half from its end."""


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass; `outcome` is empty until it ended."""

    id: int
    spec_revision: str
    began_at: str
    ended_at: str
    outcome: str
    trace: str = ""
    causes: tuple[str, ...] = ()
    """The trace ids of all requests that it answered."""


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
    trace: str = ""
    run: str = ""
    """Of which process it was."""
    known: str = ""
    """What was recorded of the resource when it began: see `overtaken.mark_of`."""
    log: str = ""
    """An excerpt of what it printed."""
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
    details: Mapping[str, Json] = field(default_factory=dict)
    """What the agent counted: files, bytes, warnings."""
    log: str = ""
    """An excerpt of what its commands printed and what it warned of; only where one task is asked for."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One project to one node, or one command there."""

    id: str
    resource: str
    node: str
    state: TaskState
    created_at: str
    project: str = ""
    trace: str = ""
    attempts: tuple[AttemptRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class EventRecord:
    id: int
    at: str
    kind: str
    resource: str
    reason: str
    message: str
    trace: str = ""


class Tables:
    """What the parts of a journal share."""

    def __init__(self, file: JournalFile, run: str, now: Callable[[], datetime]) -> None:
        """`run` is of this process: what another one began and did not end was interrupted."""
        self._file = file
        self._run = run
        self._now = now

    def _time(self) -> str:
        return as_text(self._now())


def as_text(moment: datetime) -> str:
    """A time as the journal has it; texts of this form sort as the times do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def excerpt(text: str) -> str:
    """As much of an output as the journal keeps."""
    if len(text) <= MAX_LOG:
        return text
    kept = Excerpt(MAX_LOG)
    kept.feed(text)
    return kept.text()


def to_json(value: Mapping[str, Json]) -> str | None:
    """JSON of a mapping; None for one that is too large to keep."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= MAX_JSON else None
