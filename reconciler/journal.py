"""The journal: what was begun, what ended and what the status branch still has to be told.

One SQLite file in the state directory. A step's start is on disk before it acts and its end before
anything builds on it, so that a successor of a killed primary knows what was under way
(`interrupted`) and which results were not published yet (`unpublished`). A lost journal loses history
and may repeat a step: a file that is damaged is set aside and a new one made.

Methods block for a few milliseconds (a flush to disk) and may be called from any thread; what they write
bears the trace id of whoever calls. Callers give no secrets: results, messages and logs are stored as given,
bounded in size.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.deploy_requests import DeployRequests
from reconciler.journal_events import Events
from reconciler.journal_file import JournalFile
from reconciler.journal_records import (
    AttemptRecord,
    EventRecord,
    Json,
    PassRecord,
    StepOutcome,
    StepRecord,
    TaskRecord,
    TaskState,
)
from reconciler.journal_steps import PassesAndSteps
from reconciler.journal_tasks import Tasks
from reconciler.kept_deliveries import Deliveries
from reconciler.kept_notifications import Notifications
from reconciler.secret_reads import SecretRead, SecretReads

__all__ = [
    "AttemptRecord",
    "EventRecord",
    "Journal",
    "Json",
    "PassRecord",
    "StepOutcome",
    "StepRecord",
    "TaskRecord",
    "TaskState",
]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Journal(PassesAndSteps, Tasks, Events):
    """Opens or makes the file at `path`, 0600. Raises JournalUnavailable where that cannot be done.

    Use as a context manager, or call `close`. With `read_only` the file is there, and stays as it is: it is
    not migrated, and not set aside; SettingsError where that cannot be.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], datetime] = _utc_now, read_only: bool = False
    ) -> None:
        super().__init__(JournalFile(path, read_only=read_only), uuid.uuid4().hex, now)
        self.secret_reads = SecretReads(self._file, self._time)
        self.deploy_requests = DeployRequests(self._file, self._time)
        self.deliveries = Deliveries(self._file, self._time)
        self.notifications = Notifications(self._file, now)

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

    def record_secret_reads(self, reads: Sequence[SecretRead]) -> None:
        """Who got which secrets, outside of a step; on disk when this returns."""
        self.secret_reads.record(reads)
