"""Answers that go on: server-sent events, few at a time, each with an end."""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import partial
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reconciler.bulletin import Bulletin
from reconciler.errors import TrueupError
from reconciler.web.guard import TIME
from reconciler.web.refusals import RequestRefused

LASTS: Final = 300.0
"""Seconds of one stream; then it ends, and whoever listens begins another one where it left off."""

HEARTBEAT: Final = 15.0
"""Seconds after which something is sent in any case: a proxy keeps the connection, and who is gone shows."""

SPACING: Final = 0.2
"""Seconds between two looks, where looking is cheap."""

MAX_STREAMS: Final = 64
MAX_OF_ONE: Final = 8

BEAT: Final = b": still here\n\n"
RETRY: Final = b"retry: 2000\n\n"

Tell = Callable[[bytes], Awaitable[None]]


class Streams:
    """How many there are, in all and of each caller."""

    def __init__(self, *, most: int = MAX_STREAMS, of_one: int = MAX_OF_ONE) -> None:
        self._most = most
        self._of_one = of_one
        self._open: Counter[Hashable] = Counter()

    def enter(self, key: Hashable) -> None:
        """One more, until it leaves. Raises RequestRefused where there are too many."""
        if self._open.total() >= self._most or self._open[key] >= self._of_one:
            raise RequestRefused(429, "too many streams at once", headers={"Retry-After": "15"})
        self._open[key] += 1

    def leave(self, key: Hashable) -> None:
        self._open[key] -= 1
        self._open += Counter()  # without those that are over


def wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def last_event_id(request: Request) -> int | None:
    """The number of the last event that was seen; None: none was."""
    header = request.headers.get("last-event-id", "")
    if not header:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) <= 16):
        raise RequestRefused(400, "Last-Event-ID should be the number of an event")
    return int(header)


class EventStream(Response):
    """An answer that goes on as long as `run` does and somebody listens.

    It counts as one of `key` from now on until it ends. Raises RequestRefused where there are too many.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        run: Callable[[Tell], Awaitable[None]],
        headers: Mapping[str, str],
        *,
        streams: Streams,
        key: Hashable,
    ) -> None:
        super().__init__(None, headers=headers)
        self._run = run
        self._leave = partial(streams.leave, key)
        streams.enter(key)
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"  # to nginx: pass on what comes when it comes
        if TIME in request.scope:
            request.scope[TIME].stream(LASTS + HEARTBEAT + 30)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._run(partial(_send, send))
                nursery.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._leave()


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _until_gone(receive: Receive, everything: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    everything.cancel()


class Looks:
    """When a stream looks: at once, then whenever there is news, for as long as it lasts.

    It is over after `LASTS` seconds, when `stop` is set, and where `again`, asked before each look whether
    the caller may still see this, raises a TrueupError. `spacing`: seconds between two looks.
    """

    def __init__(
        self,
        bulletin: Bulletin,
        stop: trio.Event,
        *,
        again: Callable[[], Awaitable[object]] | None = None,
        spacing: float = SPACING,
    ) -> None:
        self._bulletin = bulletin
        self._stop = stop
        self._again = again
        self._spacing = spacing
        self._ends = trio.current_time() + LASTS
        self._version: int | None = None

    async def another(self, *, patience: float = HEARTBEAT, at_once: bool = False) -> bool:
        """Wait for the next look, `patience` seconds at most; False: it is over."""
        if self._version is not None and not at_once:
            await self._wait(self._version, patience)
        if self._stop.is_set() or trio.current_time() >= self._ends:
            return False
        self._version = self._bulletin.version
        try:
            if self._again is not None:
                await self._again()
        except TrueupError:
            return False
        return True

    async def _wait(self, version: int, patience: float) -> None:
        """Until something changed since `version`, `patience` is over, or `stop` is set."""
        async with trio.open_nursery() as nursery:

            async def end_with(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_with, self._stop.wait)
            nursery.start_soon(end_with, partial(self._newer, version))
            await trio.sleep(patience)
            nursery.cancel_scope.cancel()

    async def _newer(self, version: int) -> None:
        await trio.sleep(self._spacing)
        await self._bulletin.wait_newer(version)
