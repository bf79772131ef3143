"""Runs the tasks that a primary pushes: several at once, one at a time for each target."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from agent.errors import LocalProtocolError, RemoteProtocolError, TransferFailed
from agent.failures import code_of, line_of
from agent.libc import bulk_memory
from agent.logs import bind_trace
from agent.pulse import Pulse
from agent.routing import Session, TaskChannel
from agent.status import Board
from agent.wire.channel import Channel
from agent.wire.messages import PROGRESS, Cancel, Task, TaskProgress, TaskReport, Work

Runner = Callable[[Any, Channel], Awaitable[TaskReport]]
"""Does a `Work`; `agent.work.run_work` with this host's rules."""

_log = logging.getLogger("trueup.agent")

MAX_TASKS = 4
MAX_WAITING = 256
"""Tasks that may be there at once, those that wait for a free place or for their target included."""

TELL_SECONDS = 60.0
"""Between two signs that a task gets on; after ten times as long without one a primary gives it up."""


PROGRESS_SECONDS = 1.0
"""Between two words on how far a task is, where the primary wants to hear them."""


class Workers:
    """Lives as long as the agent, across sessions, so that a target is never worked on twice at once.

    `nursery` holds the tasks. A session that ends cancels its own.
    """

    def __init__(
        self, runner: Runner, board: Board, nursery: trio.Nursery, *, limit: int = MAX_TASKS
    ) -> None:
        self._runner = runner
        self._board = board
        self._nursery = nursery
        self._places = trio.Semaphore(limit)
        self._targets: dict[str, tuple[trio.Lock, int]] = {}
        self._scopes: dict[tuple[int, str], tuple[trio.CancelScope, list[str]]] = {}
        self._ended = trio.Event()
        self._got_on = float("-inf")
        """When any task was last seen to get on: those that wait for it get on too."""

    def start(self, session: Session, task: Work, channel: TaskChannel) -> None:
        """Begin a task, or refuse it where too many wait already; never blocks."""
        key = (id(session), task.id)
        if len(self._scopes) >= MAX_WAITING:
            refused = _failed(task, "Busy", f"more than {MAX_WAITING} tasks wait at this agent")
            session.close(channel)
            if not session.control.offer(refused):
                # The primary would wait for an answer that never comes.
                session.end(RemoteProtocolError("the primary sends tasks faster than it takes answers"))
            return
        scope = trio.CancelScope()
        self._scopes[key] = (scope, [])
        self._nursery.start_soon(self._run, session, task, channel, scope, key)

    def cancel(self, session: Session, cancel: Cancel) -> None:
        """End one task of a session; its report says that it was cancelled."""
        found = self._scopes.get((id(session), cancel.task))
        if found is not None:
            scope, reasons = found
            reasons.append(cancel.reason or "the primary cancelled it")
            scope.cancel()

    def abandon(self, session: Session) -> None:
        """The session is gone: end its tasks; nobody is there to report to."""
        for (owner, _), (scope, _reasons) in self._scopes.items():
            if owner == id(session):
                scope.cancel()

    async def wait_idle(self) -> None:
        """Until no task is there, of whatever session."""
        while self._scopes:
            await self._ended.wait()

    async def _run(
        self,
        session: Session,
        task: Work,
        channel: TaskChannel,
        scope: trio.CancelScope,
        key: tuple[int, str],
    ) -> None:
        bind_trace(task.trace)
        reasons = self._scopes[key][1]
        report = None
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    pulse = Pulse()
                    nursery.start_soon(self._tell, session, task, pulse)
                    if isinstance(task, Task) and PROGRESS in task.features:
                        nursery.start_soon(_tell_progress, session, task, pulse)
                    report = await self._wait_and_work(task, channel, pulse)
                    nursery.cancel_scope.cancel()
            if report is None:
                report = _failed(task, "Cancelled", reasons[0] if reasons else "the connection was lost")
            await self._report(channel, report)
        finally:
            del self._scopes[key]
            session.close(channel)
            self._ended.set()
            self._ended = trio.Event()

    async def _wait_and_work(self, task: Work, channel: TaskChannel, pulse: Pulse) -> TaskReport:
        lock, users = self._targets.get(task.target_path, (trio.Lock(), 0))
        self._targets[task.target_path] = (lock, users + 1)
        try:
            # The target first: who waits for it takes no place from others.
            async with lock, self._places:
                pulse.install()
                with bulk_memory():
                    return await self._work(task, channel)
        finally:
            self._leave(task.target_path)

    async def _tell(self, session: Session, task: Work, pulse: Pulse) -> None:
        """Says now and then that a task gets on, or that one does for which it waits."""
        while True:
            beats = pulse.beats
            await trio.sleep(TELL_SECONDS)
            now = trio.current_time()
            gets_on = pulse.beats != beats or now < pulse.quiet_until
            if gets_on:
                self._got_on = now
            waits = pulse.beats == 0 and now - self._got_on <= 2 * TELL_SECONDS
            if gets_on or waits:
                session.control.offer(TaskProgress(task=task.id))

    async def _work(self, task: Work, channel: TaskChannel) -> TaskReport:
        await self._board.task_started(task)
        report = _failed(task, "Cancelled", "it was cancelled")
        began = trio.current_time()
        try:
            report = await self._runner(task, channel)
        except Exception as error:
            # Whatever went wrong in one task must not end the agent, which serves others.
            report = _failed(task, code_of(error), line_of(error))
            if report.reason == "InternalError":
                _log.error("a task failed because of a mistake in trueup", exc_info=error)
        finally:
            report = msgspec.structs.replace(report, seconds=trio.current_time() - began)
            with trio.CancelScope(shield=True):
                await self._board.task_ended(task, report)
        return report

    async def _report(self, channel: TaskChannel, report: TaskReport) -> None:
        try:
            try:
                await channel.send(report)
            except LocalProtocolError:
                # Too large for a frame; what matters is how the task ended.
                note = "the report was too long; warnings and output are left out"
                await channel.send(msgspec.structs.replace(report, warnings=(note,), after=()))
        except TransferFailed:
            return

    def _leave(self, target: str) -> None:
        lock, users = self._targets[target]
        if users == 1:
            del self._targets[target]
        else:
            self._targets[target] = (lock, users - 1)


async def _tell_progress(session: Session, task: Work, pulse: Pulse) -> None:
    """Says how far a task is, whenever that is another than before."""
    told = None
    while True:
        await trio.sleep(PROGRESS_SECONDS)
        now = pulse.measure()
        progress = TaskProgress(
            task=task.id,
            phase=pulse.phase,
            files_done=now.files_done,
            files_total=now.files_total,
            bytes_done=now.bytes_done,
            bytes_total=now.bytes_total,
            beats=pulse.beats,
        )
        if progress != told and session.control.offer(progress):
            told = progress


def _failed(task: Work, reason: str, message: str) -> TaskReport:
    return TaskReport(task=task.id, state="FAILED", reason=reason, message=message)
