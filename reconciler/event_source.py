"""Where events are read: at a running primary, or in the journal of the state directory where none runs."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
import trio

from reconciler import live
from reconciler.errors import JournalUnavailable
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.live_streams import Follower, Say
from reconciler.sent_events import SentEvent
from reconciler.settings import Settings

Event = Mapping[str, Any]
"""As the API has it: `id`, `at`, `kind`, `resource`, `reason`, `message`, `trace`."""

LOOKS: Final = 2.0
"""Seconds between two looks into the journal of a primary that does not run."""

BATCH: Final = 200
"""Events that are read at once."""

PATH: Final = "/api/events"


class EventSource(Protocol):
    async def page(self, params: Mapping[str, str]) -> Mapping[str, Any]:
        """What `GET /api/events` answers to this query."""

    async def follow(self, params: Mapping[str, str], after: int, take: Callable[[Event], None]) -> None:
        """Each event after this one, for ever."""


async def open_source(settings: Settings, say: Say) -> EventSource:
    """Raises NoPrimary where nothing runs and nothing is left to read, and what `live.request` raises."""
    return OfPrimary(settings, say) if await primary_has(settings, PATH, say) else OfJournal(settings)


async def primary_has(settings: Settings, path: str, say: Say) -> bool:
    """Whether a running primary answers at this path; if not, the journal is left to read, and that is said.

    Raises NoPrimary where there is no journal either; SettingsError where its directory cannot be entered.
    """
    if await live.request_if_running(settings, "GET", path, params={"limit": "1"}) is not None:
        return True
    if not settings.sees_state(JOURNAL_FILE):
        raise live.NoPrimary(
            f"no primary is running on {settings.state_dir}, and no journal is there",
            hint="give the primary's --state-dir, or name one elsewhere with TRUEUP_SERVER and TRUEUP_TOKEN",
        )
    say(f"no primary is running here: this is from the journal in {settings.state_dir}")
    return False


class OfPrimary:
    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say

    async def page(self, params: Mapping[str, str]) -> Mapping[str, Any]:
        document: Mapping[str, Any] = await live.request(self._settings, "GET", PATH, params=params)
        return document

    async def follow(self, params: Mapping[str, str], after: int, take: Callable[[Event], None]) -> None:
        def one(sent: SentEvent) -> bool:
            take(msgspec.json.decode(sent.data))
            return False

        await Follower(self._settings, PATH, one, self._say, params=params, after=str(after)).run()


class OfJournal:
    """Opens the file anew for each look, as it may be replaced, and never writes to it."""

    def __init__(self, settings: Settings, *, looks: float = LOOKS) -> None:
        self._path = settings.state_dir / JOURNAL_FILE
        self._looks = looks

    async def page(self, params: Mapping[str, str]) -> Mapping[str, Any]:
        return await trio.to_thread.run_sync(self._page, params)

    async def follow(self, params: Mapping[str, str], after: int, take: Callable[[Event], None]) -> None:
        while True:
            try:
                events = await trio.to_thread.run_sync(self._following, params, after)
            except JournalUnavailable:
                events = []  # it is just being made anew
            for event in events:
                take(event)
                after = event["id"]
            if len(events) < BATCH:
                await trio.sleep(self._looks)

    def _following(self, params: Mapping[str, str], after: int) -> list[Event]:
        from reconciler.web.apis.events import FIRST, event_view, newest_event

        with Journal(self._path, read_only=True) as journal:
            # A journal that was begun anew counts from 1 again.
            known = after if after <= newest_event(journal) else 0
            found = journal.events(
                BATCH, after=known or FIRST, kind=params.get("kind", ""), resource=params.get("resource", "")
            )
        return [msgspec.to_builtins(event_view(each)) for each in found]

    def _page(self, params: Mapping[str, str]) -> Mapping[str, Any]:
        from reconciler.web.apis.events import EventsQuery, events_page

        with Journal(self._path, read_only=True) as journal:
            page = events_page(journal, msgspec.convert(dict(params), EventsQuery, strict=False))
        document: Mapping[str, Any] = msgspec.to_builtins(page)
        return document
