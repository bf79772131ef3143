"""A pass's part in notifications: what is new goes into the journal, from where it is sent.

Nothing here fails or delays a pass: whatever goes wrong is a line in the log, and told by the next one.
"""

from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from reconciler.errors import LeaseHeld, TrueupError
from reconciler.kept_notifications import Told
from reconciler.lease_keeper import Role
from reconciler.mishaps import line_for_log
from reconciler.notifications.news import News, news, taken_as_told
from reconciler.notifications.wording import Draft, Origin, drafts
from reconciler.primary import Primary
from reconciler.recording import moved
from reconciler.secrets.known import KNOWN
from reconciler.spec.model import Spec
from reconciler.status.documents import Recorded
from reconciler.tracing import current_trace

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(slots=True)
class Announcement:
    """Of one pass of one primary."""

    primary: Primary
    spec: Spec
    commit: str
    """Of the spec."""
    _told: Told | None = field(default=None, init=False)

    async def prepare(self, recorded: Recorded) -> None:
        """Before the pass publishes what it found: know from where it went."""
        try:
            self._told = await trio.to_thread.run_sync(self.primary.journal.notifications.told)
            if self._leads and not self._counts:
                await self._write(Told(self._epoch, taken_as_told(recorded)), [])
        except TrueupError as error:
            self._warn(error)

    async def announce(self, before: Recorded, after: Recorded) -> int:
        """What is new since it was told last, once it is published; how many messages that makes."""
        try:
            known = self._told.known if self._told is not None and self._counts else taken_as_told(before)
            found, now_known = news(known, after, partial(moved, moves=self.spec.moved))
            messages = self._messages(found)
            if not self._leads and not (messages and await self._take_lease()):
                return 0
            told = Told(self._epoch, now_known)
            if messages or told != self._told:
                await self._write(told, messages)
        except TrueupError as error:
            self._warn(error)
            return 0
        self.primary.notices.tell()
        return len(messages)

    def _messages(self, found: list[News]) -> list[Draft]:
        origin = Origin(self.primary.now(), self.commit, current_trace())
        return drafts(found, self.spec.notifications, origin, KNOWN.mask)

    async def _write(self, told: Told, messages: list[Draft]) -> None:
        await trio.to_thread.run_sync(self.primary.journal.notifications.tell, told, messages)
        self._told = told

    async def _take_lease(self) -> bool:
        """For a pass that had nothing to write down, and tells what an earlier one could not."""
        leadership = self.primary.leadership
        assert leadership is not None
        if not self._counts:
            return False
        try:
            await leadership.claim()
        except LeaseHeld:
            return False
        return self._counts

    @property
    def _leads(self) -> bool:
        leadership = self.primary.leadership
        return leadership is not None and leadership.lease.role is Role.LEADER

    @property
    def _epoch(self) -> int:
        leadership = self.primary.leadership
        return leadership.lease.epoch if leadership is not None else 0

    @property
    def _counts(self) -> bool:
        """Whether nobody else can have told anything since."""
        return self._told is not None and self._told.epoch == self._epoch

    @staticmethod
    def _warn(error: TrueupError) -> None:
        log.warning("notifications: the next pass tells what is new", error=line_for_log(error))
