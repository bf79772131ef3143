"""What changed on the page, as server-sent events: sections as they are now, whenever they are others.

A stream ends by itself after a while and the browser begins another one, so that none outlives its session
or the patience of a proxy by much. It is level-triggered: what was missed between two is sent at the start.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from reconciler.bulletin import Bulletin
from reconciler.web.page.render import Section
from reconciler.web.page.sessions import Session
from reconciler.web.streams import BEAT, HEARTBEAT, RETRY, Looks, Tell

BUSY: Final = 2.0
"""Seconds after which one looks in any case while tasks are under way, whose progress nobody tells of."""

SPACING: Final = 1.0
"""Seconds between two looks: each renders the whole page."""

MAX_OF_SESSION: Final = 6

LOGIN: Final = b"event: login\ndata: {}\n\n"


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
    looks = Looks(bulletin, stop, spacing=SPACING)
    while await looks.another(patience=BUSY if busy() else HEARTBEAT):
        mine = session()
        if mine is None:
            await tell(LOGIN)
            return
        changed = [each for each in await sections(mine) if sent.get(each.id) != each.digest]
        for each in changed:
            await tell(event(each, mine.csrf))
            sent[each.id] = each.digest
        if not changed:
            await tell(BEAT)


def event(section: Section, csrf: str) -> bytes:
    """JSON has no line breaks, which would end the event."""
    return b"event: section\ndata: " + json.dumps(section.for_session(csrf)).encode() + b"\n\n"
