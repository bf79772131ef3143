"""What changed on the page, as server-sent events: sections as they are now, whenever they are others.

A stream ends by itself after a while and the browser begins another one, so that none outlives its session
or the patience of a proxy by much. It is level-triggered: what was missed between two is sent at the start.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reconciler.bulletin import Bulletin
from reconciler.web.page.render import Section
from reconciler.web.page.sessions import Session

LASTS: Final = 300.0
"""Seconds of one stream."""

HEARTBEAT: Final = 15.0
"""Seconds after which something is sent in any case: a proxy keeps the connection, and who is gone shows."""

BUSY: Final = 2.0
"""The same while tasks are under way, whose progress nobody tells of."""

SPACING: Final = 1.0
"""Seconds between two looks of one stream, however much changes."""

MAX_STREAMS: Final = 64
MAX_OF_SESSION: Final = 6

RETRY: Final = b"retry: 2000\n\n"
LOGIN: Final = b"event: login\ndata: {}\n\n"
BEAT: Final = b": still here\n\n"

Tell = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Streams:
    """How many there are."""

    open: dict[int, int] = field(default_factory=dict)
    """By the identity of the session."""

    def has_room(self, session: Session) -> bool:
        return sum(self.open.values()) < MAX_STREAMS and self.open.get(id(session), 0) < MAX_OF_SESSION

    def enter(self, session: Session) -> None:
        self.open[id(session)] = self.open.get(id(session), 0) + 1

    def leave(self, session: Session) -> None:
        left = self.open[id(session)] - 1
        if left:
            self.open[id(session)] = left
        else:
            del self.open[id(session)]


class EventStream(Response):
    """An answer that goes on as long as `run` does and somebody listens."""

    media_type = "text/event-stream"

    def __init__(
        self,
        run: Callable[[Tell], Awaitable[None]],
        headers: Mapping[str, str],
        *,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(None, headers=headers)
        self._run = run
        self._ended = ended
        del self.headers["content-length"]

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._run(partial(_send, send))
                nursery.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._ended()


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _until_gone(receive: Receive, everything: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    everything.cancel()


async def watch(
    tell: Tell,
    *,
    bulletin: Bulletin,
    sections: Callable[[Session], Awaitable[Sequence[Section]]],
    session: Callable[[], Session | None],
    stop: trio.Event,
    busy: Callable[[], bool] = lambda: False,
) -> None:
    """Tell what changed until the session or the time of the stream is over, or `stop` is set."""
    await tell(RETRY)
    sent: dict[str, str] = {}
    ends = trio.current_time() + LASTS
    while not stop.is_set() and trio.current_time() < ends:
        mine = session()
        if mine is None:
            await tell(LOGIN)
            return
        version = bulletin.version
        changed = [each for each in await sections(mine) if sent.get(each.id) != each.digest]
        for each in changed:
            await tell(event(each, mine.csrf))
            sent[each.id] = each.digest
        if not changed:
            await tell(BEAT)
        await _news(bulletin, version, stop, BUSY if busy() else HEARTBEAT)


async def _news(bulletin: Bulletin, version: int, stop: trio.Event, patience: float) -> None:
    """Until something changed, it is time to look all the same, or the primary stops."""
    async with trio.open_nursery() as nursery:

        async def end_with(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        async def wait_newer() -> None:
            await trio.sleep(SPACING)
            await bulletin.wait_newer(version)

        nursery.start_soon(end_with, stop.wait)
        nursery.start_soon(end_with, wait_newer)
        await trio.sleep(patience)
        nursery.cancel_scope.cancel()


def event(section: Section, csrf: str) -> bytes:
    """JSON has no line breaks, which would end the event."""
    return b"event: section\ndata: " + json.dumps(section.for_session(csrf)).encode() + b"\n\n"
