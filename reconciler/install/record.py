"""An installation in the journal: a task of its node with one attempt, and an event at its end."""

import uuid
from dataclasses import dataclass
from functools import partial

import structlog

from reconciler.errors import JournalUnavailable
from reconciler.installations import hold, is_under_way, let_go
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.settings import Settings

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass
class Record:
    """Methods block. A journal that cannot be used keeps nobody from an installation."""

    settings: Settings
    node: str
    id: str
    attempt: int | None = None
    lock: int | None = None
    """By which others know that it is under way."""

    @classmethod
    def begin(cls, settings: Settings, node: str) -> "Record":
        record = cls(settings, node, uuid.uuid4().hex)
        try:
            with Journal(settings.state_dir / JOURNAL_FILE) as journal:
                journal.fail_interrupted_tasks(partial(is_under_way, settings), installations_alone=True)
                record.lock = hold(settings, record.id)
                journal.create_task(record.id, f"nodes/{node}", node)
                record.attempt = journal.begin_attempt(record.id)
        except (JournalUnavailable, OSError) as error:
            log.warning("this installation is not recorded", why=str(error))
        return record

    def end(self, reason: str, message: str, text: str) -> None:
        """`reason` empty: it succeeded."""
        try:
            if self.attempt is not None:
                self._end(self.attempt, reason, message, text)
        finally:
            if self.lock is not None:
                let_go(self.settings, self.id, self.lock)

    def _end(self, attempt: int, reason: str, message: str, text: str) -> None:
        try:
            with Journal(self.settings.state_dir / JOURNAL_FILE) as journal:
                journal.end_attempt(
                    self.id, attempt, "FAILED" if reason else "SUCCESS", reason, message, log=text
                )
                journal.record_event("installed", f"nodes/{self.node}", reason or "Installed", message)
        except JournalUnavailable as error:
            log.warning("the end of this installation is not recorded", why=str(error))
