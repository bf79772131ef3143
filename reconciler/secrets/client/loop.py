"""A trio loop in a thread of its own, for callers that have none: any thread may ask it to run something."""

import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class LoopClosed(Exception):
    """The loop has ended, or ended before the answer was there."""


class LoopElsewhere(Exception):
    """The loop is a thread of the process that this one was forked from: here nothing runs it."""


class LoopThread:
    """`call` runs an async function there and waits for its outcome; `close` ends everything at once.

    A fork takes no thread along, and may copy its locks while somebody holds them: in the child nothing of
    this may be waited for.
    """

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._process = os.getpid()
        self._started: Future[tuple[trio.lowlevel.TrioToken, trio.Nursery]] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._token, self._nursery = self._started.result()

    def start(self, function: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> "Future[T]":
        """Begin a call. Raises LoopClosed and LoopElsewhere."""
        if self._process != os.getpid():
            raise LoopElsewhere
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise LoopClosed
            self._pending.add(future)
            future.add_done_callback(self._pending.discard)
            self._token.run_sync_soon(self._nursery.start_soon, self._serve, future, function, arguments)
        return future

    def call(
        self, deadline: float, function: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments
    ) -> T:
        """Make a call and wait for it, `deadline` seconds at most. Raises what the function raises,
        LoopClosed, LoopElsewhere and TimeoutError: then it goes on there, for whoever asks next."""
        return self.start(function, *arguments).result(deadline)

    def close(self) -> None:
        if self._process != os.getpid():
            return
        with self._lock, suppress(trio.RunFinishedError):
            self._closed = True
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        # The last reference to a client may go in the loop itself, which cannot wait for its own end.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            with self._lock:
                self._closed = True
                pending = tuple(self._pending)
            for future in pending:
                future.set_exception(LoopClosed())

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._started.set_result((trio.lowlevel.current_trio_token(), nursery))
            await trio.sleep_forever()

    async def _serve(self, future: Future[T], function: Callable[..., Awaitable[T]], arguments: Any) -> None:
        # Never out of the task: one bad call must not end the loop for all others.
        try:
            outcome = await function(*arguments)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(outcome)
