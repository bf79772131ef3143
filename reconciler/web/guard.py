"""What stands before an app: a deadline for each request, a limit of how many, and only plain HTTP/1."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from reconciler.mishaps import line_for_log, way_to

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"connection", b"close"),
]


HEALTH: Final = "/health"
"""Answered at once, however many requests wait for the rest of a body."""

TIME: Final = "trueup.time"
"""Where in a request's scope its `RequestTime` is."""


@dataclass(frozen=True, slots=True)
class Limits:
    deadline: float
    """Seconds for a whole request, its body included."""
    max_requests: int
    """At the same time; a further one is told to come again."""


class RequestTime:
    """How long one request may take. What is known to be worth it may take longer than others."""

    def __init__(self, scope: trio.CancelScope, leave: Callable[[], None]) -> None:
        """`leave`: it is no longer one of the requests that there may be at once."""
        self._scope = scope
        self._began = trio.current_time()
        self._leave: Callable[[], None] | None = leave

    def allow(self, seconds: float) -> None:
        """At least so many seconds from its beginning on."""
        self._scope.deadline = max(self._scope.deadline, self._began + seconds)

    def stream(self, seconds: float) -> None:
        """The same, for an answer that goes on: how many of these there may be is bounded elsewhere."""
        self.allow(seconds)
        self.end()

    def end(self) -> None:
        if self._leave is not None:
            self._leave()
        self._leave = None


class Guard:
    """Runs an app for each request. `draining` is a nursery that outlives the requests."""

    def __init__(self, app: App, limits: Limits, draining: trio.Nursery) -> None:
        self._app = app
        self._limits = limits
        self._draining = draining
        self._running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            # Nothing here is a WebSocket: closed before it was accepted, it is a 403.
            await send({"type": "websocket.close"})
            return
        answer, heard = _Answer(send), _Heard(receive)
        try:
            if not scope["http_version"].startswith("1"):
                await answer.error(505, "HTTP/1.1 is spoken here")
            elif self._running >= self._limits.max_requests and scope["path"] != HEALTH:
                await answer.error(503, "too many requests at once; try again in a moment")
            else:
                await self._run(scope, heard, answer)
        finally:
            # Hypercorn waits for somebody to take what a client still sends, for ever, also after the end.
            self._draining.start_soon(_drain, heard)

    async def _run(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        self._running += 1
        limit = trio.CancelScope(deadline=trio.current_time() + self._limits.deadline)
        scope[TIME] = time = RequestTime(limit, self._leave)
        try:
            with limit:
                await self._app(scope, receive, answer.send)
            if limit.cancelled_caught and not answer.started:
                await answer.error(408, "the request took too long")
        except Exception as error:
            # Its text may hold what was sent.
            log.error("no answer to %s: %s", scope["path"], line_for_log(error))
            log.debug("the way to where it broke off: %s", way_to(error))
            if not answer.started:
                await answer.error(500, "internal error; the log of trueup serve has a line on it")
        finally:
            time.end()

    def _leave(self) -> None:
        self._running -= 1


class _Answer:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        self.started = self.started or message["type"] == "http.response.start"
        await self._send(message)

    async def error(self, status: int, text: str) -> None:
        body = b'{"success": false, "message": "%s"}' % text.encode()
        headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Heard:
    """What a client sends. Hypercorn says once that it is gone: whoever asks later is told again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone: Message | None = None

    async def __call__(self) -> Message:
        if self._gone is not None:
            return self._gone
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = message
        return message


async def _drain(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
