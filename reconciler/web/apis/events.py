"""The journal's events: a page at a time, or as server-sent events as they happen."""

from functools import partial
from typing import Annotated, Final

import msgspec
import trio
from starlette.responses import Response

from reconciler.errors import JournalUnavailable
from reconciler.journal import EventRecord, Journal
from reconciler.runner import Runner
from reconciler.web.answers import NO_STORE
from reconciler.web.apis.known import Limit, Name
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role
from reconciler.web.streams import (
    BEAT,
    RETRY,
    EventStream,
    Looks,
    Streams,
    Tell,
    last_event_id,
    wants_stream,
)

BATCH: Final = 200
"""Events that a stream reads at once."""

FIRST: Final = -1
"""Stands before all events; 0 would mean that there is no such bound."""


class EventView(Model, frozen=True):
    """Something that happened: a transition, a pairing, a refusal. Ids only grow."""

    id: int
    at: str
    kind: str
    resource: str
    reason: str
    message: str
    trace: str


class Events(Model, frozen=True):
    """`next`: what `before`, or `after` where that was asked for, has to be for the page that follows; null:
    there is none. `newest`: the id of the newest event there is; 0: there is none."""

    events: tuple[EventView, ...]
    next: int | None
    newest: int


class EventsQuery(Asked, frozen=True, kw_only=True):
    limit: Limit = 50
    after: Annotated[
        int, msgspec.Meta(ge=0, le=2**53, description="What follows this event, the oldest first.")
    ] = 0
    before: Annotated[
        int, msgspec.Meta(ge=0, le=2**53, description="What came before this event, the newest first.")
    ] = 0
    kind: Name = ""
    resource: Annotated[
        str, msgspec.Meta(max_length=1024, description="This one and all below it, such as nodes.")
    ] = ""


def endpoints(runner: Runner, stop: trio.Event) -> list[AnyEndpoint]:
    return [
        Endpoint(
            method="GET",
            path="/api/events",
            summary="Events, the newest first; with Accept: text/event-stream as they happen, after "
            "Last-Event-ID or `after`, or from now on",
            tag="events",
            handler=_Events(runner, stop).show,
            role=Role.READ,
            query=EventsQuery,
            answer=Events,
            also={"text/event-stream": "Events as they happen: id, event (its kind), data (its JSON)."},
            headers={"Last-Event-ID": "Of a stream: the last event that was seen."},
        )
    ]


class _Events:
    def __init__(self, runner: Runner, stop: trio.Event) -> None:
        self._primary = runner.primary
        self._stop = stop
        self._streams = Streams()

    async def show(self, call: Call[EventsQuery, Nothing]) -> Events | Response:
        if wants_stream(call.request):
            return await self._stream(call)
        return await trio.to_thread.run_sync(events_page, self._primary.journal, call.query)

    async def _stream(self, call: Call[EventsQuery, Nothing]) -> Response:
        seen = _last_seen(call)
        newest = await trio.to_thread.run_sync(newest_event, self._primary.journal)
        # A journal that was begun anew counts from 1 again.
        after = newest if seen is None else seen if seen <= newest else 0
        after = after or FIRST
        return EventStream(
            call.request,
            partial(self._run, call, after),
            NO_STORE,
            streams=self._streams,
            key=call.caller.name,
        )

    async def _run(self, call: Call[EventsQuery, Nothing], after: int, tell: Tell) -> None:
        looks, more = Looks(self._primary.bulletin, self._stop, again=call.again), True
        await tell(RETRY)
        while await looks.another(at_once=more):
            try:
                events = await trio.to_thread.run_sync(_following, self._primary.journal, call.query, after)
            except JournalUnavailable:
                return
            for each in events:
                await tell(as_sent(event_view(each)))
                after = each.id
            if not events:
                await tell(BEAT)
            more = len(events) == BATCH


def _last_seen(call: Call[EventsQuery, Nothing]) -> int | None:
    """The event that a stream goes on after; None: from now on."""
    header = last_event_id(call.request)
    if header is not None:
        return header
    return call.query.after or None


def _following(journal: Journal, query: EventsQuery, after: int) -> tuple[EventRecord, ...]:
    return journal.events(BATCH, after=after, kind=query.kind, resource=query.resource)


def newest_event(journal: Journal) -> int:
    newest = journal.events(1)
    return newest[0].id if newest else 0


def events_page(journal: Journal, query: EventsQuery) -> Events:
    newest = newest_event(journal)
    found = journal.events(
        query.limit + 1, after=query.after, before=query.before, kind=query.kind, resource=query.resource
    )
    page = found[: query.limit]
    return Events(
        events=tuple(map(event_view, page)),
        next=page[-1].id if len(found) > len(page) else None,
        newest=newest,
    )


def event_view(event: EventRecord) -> EventView:
    return EventView(
        id=event.id,
        at=event.at,
        kind=event.kind,
        resource=event.resource,
        reason=event.reason,
        message=event.message,
        trace=event.trace,
    )


def as_sent(event: EventView) -> bytes:
    """JSON has no line breaks, which would end the event."""
    kind = "".join(character for character in event.kind if character.isalnum() or character in "-_")
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, kind.encode(), msgspec.json.encode(event))
