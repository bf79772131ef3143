"""Stands outermost before an app: gives each request its trace, and counts it by what was answered."""

from typing import Any, Final

import trio
from starlette.datastructures import Headers

from reconciler.metrics.declared import REQUEST_DURATION, REQUESTS
from reconciler.metrics.registry import Metrics
from reconciler.tracing import from_traceparent, trace
from reconciler.web.guard import App, Message

ROUTE: Final = "trueup.route"
"""Where in a request's scope the path stands as it is declared, such as `/api/secrets/{name}/sync`."""

TRACE_HEADER: Final = b"x-trueup-trace"
"""In every answer: under this id the logs, the journal and the status branch tell what followed."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observed:
    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with trace(from_traceparent(Headers(scope=scope).get("traceparent", ""))) as trace_id:
            seen = _Seen(send, trace_id)
            began = trio.current_time()
            try:
                await self._app(scope, receive, seen.send)
            finally:
                self._count(scope, seen, trio.current_time() - began)

    def _count(self, scope: Any, seen: "_Seen", seconds: float) -> None:
        route = scope.get(ROUTE, "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        status = f"{seen.status // 100}xx" if seen.status else "none"
        self._metrics.count(REQUESTS, route=route, method=method, status=status)
        if not seen.is_stream:
            self._metrics.observe(REQUEST_DURATION, seconds, route=route)


class _Seen:
    """What is answered, on its way out."""

    def __init__(self, send: Any, trace_id: str) -> None:
        self._send = send
        self._trace = trace_id.encode()
        self.status = 0
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            self.is_stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in headers
            )
            message = {**message, "headers": [*headers, (TRACE_HEADER, self._trace)]}
        await self._send(message)
