"""HTTP/1.1 connections, each bounded: how many, how long, how slow. Hypercorn speaks the protocol.

Hypercorn's own server sets no limit to the number of connections, to the time of a request or to that of a
client which does not read, and one connection's unexpected error ends it whole. So its connections are run
from here.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from reconciler.metrics.registry import Metrics
from reconciler.mishaps import line_for_log, way_to
from reconciler.web.guard import App, Guard, Limits
from reconciler.web.observed import Observed

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1024
"""At once for each server; a further one is closed at its start."""

MAX_HEAD: Final = 32 * 1024
"""Bytes of a request's line and headers."""

IDLE: Final = 10.0
"""Seconds that a connection has to send the head of a request, and then of the next one."""

SEND_DEADLINE: Final = 20.0
"""Seconds for the client to take one piece of an answer."""

MAX_AGE: Final = 600.0
"""Seconds of a connection in all."""

LINGER: Final = 1.0
"""Seconds that a client which is still sending has to read why, before the connection is torn down."""

GRACE: Final = 5.0
"""Seconds for answers that are under way when the server is told to end."""


class HttpServer:
    """Serves one app on some listeners, which it closes at its end."""

    def __init__(
        self,
        app: App,
        listeners: list[trio.SocketListener],
        limits: Limits,
        metrics: Metrics | None = None,
    ) -> None:
        self._app = app
        self._metrics = Metrics() if metrics is None else metrics
        self._listeners = listeners
        self._limits = limits
        self._open = 0
        self._config = Config()
        self._config.errorlog = log
        self._config.include_server_header = False
        self._config.h11_max_incomplete_size = MAX_HEAD
        self._config.keep_alive_timeout = IDLE
        self._context = WorkerContext(None)

    async def run(self, stop: trio.Event) -> None:
        """Serve until `stop` is set, and then finish the answers that are under way."""
        async with trio.open_nursery() as draining, trio.open_nursery() as connections:
            app = ASGIWrapper(Observed(Guard(self._app, self._limits, draining), self._metrics))
            try:
                async with trio.open_nursery() as accepting:
                    serve = partial(
                        trio.serve_listeners,
                        partial(self._connection, app),
                        self._listeners,
                        handler_nursery=connections,
                    )
                    accepting.start_soon(serve)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
            finally:
                await self._context.terminated.set()
                deadline = trio.current_time() + GRACE
                connections.cancel_scope.deadline = draining.cancel_scope.deadline = deadline

    async def _connection(self, app: ASGIWrapper, transport: trio.SocketStream) -> None:
        """One connection from accept to end; raises nothing because of the client."""
        if self._open >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(transport)
            return
        self._open += 1
        stream: Any = _BoundedStream(transport)
        try:
            with trio.move_on_after(MAX_AGE):
                await _Connection(app, self._config, self._context, ConnectionState({}), stream).run()
        except Exception as error:
            # Its text may hold what was sent.
            log.warning("a connection broke off: %s", line_for_log(error))
            log.debug("the way to where it broke off: %s", way_to(error))
        finally:
            self._open -= 1
            await trio.aclose_forcefully(transport)


class _Connection(TCPServer):
    """Ends once its client has: Hypercorn's goes on waiting for a next request until it is idle too long."""

    _heard_all = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._heard_all = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if not (self._heard_all and isinstance(event, Updated)):
            await super().protocol_send(event)


class _BoundedStream:
    """As much of a stream as Hypercorn uses. It shields its sending from being cancelled: so that has its
    own deadline, after which the connection is broken."""

    def __init__(self, transport: trio.SocketStream) -> None:
        self._transport = transport
        self.socket = transport.socket
        self._said_all = False
        self._heard_all = trio.Event()

    async def receive_some(self, size: int) -> bytes:
        try:
            data = bytes(await self._transport.receive_some(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._heard_all.set()
            raise
        if not data:
            self._heard_all.set()
        return data

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(SEND_DEADLINE) as limit:
            await self._transport.send_all(data)
        if limit.cancelled_caught:
            await trio.aclose_forcefully(self._transport)
            raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        await self._transport.send_eof()
        self._said_all = True

    async def aclose(self) -> None:
        if self._said_all and not self._heard_all.is_set():
            # Closing a socket that has unread bytes resets it, and the client may lose what we said last.
            with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                try:
                    while await self._transport.receive_some(MAX_HEAD):
                        pass
                except trio.BusyResourceError:
                    await self._heard_all.wait()
        await self._transport.aclose()
