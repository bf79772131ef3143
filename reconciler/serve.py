"""A primary that goes on running: the loop of passes, the agents' hub, the local socket and HTTP."""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
import trio

from agent.status import notify
from reconciler.doubts import tell_doubts
from reconciler.hardening import allow_open_files, forbid_core_dumps
from reconciler.live import socket_path
from reconciler.metrics.declared import FETCH_FAILURES
from reconciler.primary import Primary, open_primary
from reconciler.reload import Reload, read_again
from reconciler.runner import Runner, then
from reconciler.settings import Settings
from reconciler.watchdog import keep_alive
from reconciler.web.app import LOCAL_LIMITS, PUBLIC_LIMITS, local_app, public_app
from reconciler.web.door import Door
from reconciler.web.server import HttpServer
from reconciler.web.sockets import address_of, listen_locally, listen_on, remove_socket
from reconciler.web.standby import StandbyGate

log: structlog.stdlib.BoundLogger = structlog.get_logger()

GRACE: Final = 30.0
"""Seconds that the pass under way has to end after SIGTERM or SIGINT. Then it is given up, like one that is
killed: the next one repairs what it left."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for the pass that is under way.

    Raises SettingsError if another primary works on the state directory, or a socket or address is not to
    be had.
    """
    forbid_core_dumps()
    allow_open_files()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            stop, again = trio.Event(), Reload()
            nursery.start_soon(_heed, signals, stop, again, nursery)
            while not stop.is_set():
                # Who has lost the lease begins anew, from what is recorded by then.
                async with open_primary(settings, standing=True) as primary:
                    await _serve(primary, stop, again)
                    settings = primary.settings
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _heed(
    signals: AsyncIterator[int], stop: trio.Event, again: Reload, everything: trio.Nursery
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            everything.start_soon(again.run)
            continue
        if stop.is_set():
            everything.cancel_scope.cancel()
        stop.set()
        everything.cancel_scope.deadline = trio.current_time() + GRACE
        log.info("stopping", signal=signal.Signals(number).name)
        notify("STOPPING=1")


async def _serve(primary: Primary, stop: trio.Event, again: Reload) -> None:
    """Stand by until the lease is ours; then make passes until `stop` is set, or the lease is lost."""
    assert primary.leadership is not None
    lease = primary.leadership.lease
    path = socket_path(primary.settings)
    primary.metrics.open()
    primary.repositories.on_failure = partial(primary.metrics.count, FETCH_FAILURES)
    runner = Runner(primary)
    door = Door.of(primary.settings, primary.now)
    again.read = partial(read_again, primary, door, runner)
    ended = trio.Event()
    async with AsyncExitStack() as opened:
        local = await opened.enter_async_context(listen_locally(path))
        opened.callback(remove_socket, path)
        public = await listen_on(primary.settings.http_addr)
        for listener in public:
            await opened.enter_async_context(listener)
        at_address = StandbyGate(public_app(runner, door, ended), lease)
        at_socket = StandbyGate(local_app(runner, ended), lease)
        servers = (
            HttpServer(at_address, public, PUBLIC_LIMITS, primary.metrics),
            HttpServer(at_socket, [local], LOCAL_LIMITS, primary.metrics),
        )
        async with trio.open_nursery() as serving, trio.open_nursery() as background:
            for server in servers:
                serving.start_soon(server.run, ended)
            background.start_soon(then, stop.wait, ended.set)
            background.start_soon(runner.keep_secrets_fresh)
            background.start_soon(runner.watch_agents)
            background.start_soon(runner.watch_drift)
            background.start_soon(runner.watch_directories)
            background.start_soon(tell_doubts, primary)
            background.start_soon(runner.act_on_deliveries)
            background.start_soon(keep_alive, primary.settings)
            log.info("serving", http=", ".join(str(address_of(one)) for one in public), socket=path)
            notify("READY=1")
            async with trio.open_nursery() as standing_by:
                standing_by.start_soon(then, stop.wait, standing_by.cancel_scope.cancel)
                await lease.stand_by()
                standing_by.cancel_scope.cancel()
            if not stop.is_set():
                lease.on_recovered = lambda: runner.ask("the lease is renewed again")
                background.start_soon(then, lease.keep, ended.set)
                background.start_soon(runner.tell_people)
                await runner.run(ended)
            background.cancel_scope.cancel()
