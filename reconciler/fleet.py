"""The agents of a spec: who is enrolled, who is connected, and what is asked of them."""

import random
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar

import msgspec
import structlog
import trio

from agent.backoff import Backoff
from agent.errors import RemoteProtocolError, TransferFailed, TrueupError
from agent.wire.messages import ITEMISE, NO_TIMES, Command, Removal, Task, TaskReport, Work
from reconciler.deploy.request import NodeCommand
from reconciler.desired import DesiredSync
from reconciler.errors import JournalUnavailable, StepFailed
from reconciler.journal import Journal
from reconciler.lanes import Place
from reconciler.metrics.declared import ATTEMPTS_AGAIN, BLOCKS, TASKS
from reconciler.metrics.of_nodes import count_report
from reconciler.metrics.registry import Metrics
from reconciler.observation import Unknown
from reconciler.running import Running
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.spec.model import Retry
from reconciler.status.conditions import Reason, bounded
from reconciler.sync.hub import AgentTooOld, AgentUnreachable, Hub
from reconciler.sync.itemising import Itemising
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Attempts
from reconciler.sync_task import look_task, sync_task, told_of_owners
from reconciler.task_reports import log_of, masked, masked_sums, report_details

log: structlog.stdlib.BoundLogger = structlog.get_logger()

RETRYABLE_REASONS = frozenset(
    {
        Reason.AGENT_UNREACHABLE,
        Reason.SYNC_FAILED,
        Reason.PROTOCOL_ERROR,
        # The agents' own: the target changed under the task, or something else uses it. Not where the source
        # changed: the same index cannot be served any more, and the next pass makes another.
        "Busy",
        "TargetBusy",
        "TargetChanged",
        "VerificationFailed",
    }
)

QUIET: Final = 2.0
"""Seconds of waiting for agents before the log says so."""

T = TypeVar("T")

_REASON = re.compile(r"[A-Z][A-Za-z]{2,63}")


class TaskFailed(StepFailed):
    """An agent reported that it could not do what it was asked to; the reason is the agent's.

    What an agent says ends in status files and on terminals, so it is taken as text of that form only.
    """

    def __init__(self, report: TaskReport, *, unnamed: Reason) -> None:
        super().__init__(bounded(report.message) or "the agent could not complete the task")
        self._reason = report.reason if _REASON.fullmatch(report.reason) else unnamed
        self.details = report_details(report)
        self.output = report.after[-1].output if report.after else ""
        self.report = report

    @property
    def reason(self) -> str:  # type: ignore[override]
        return self._reason


def _nobody() -> None:
    """For callers whom nobody watches."""


class Fleet:
    """What a pass needs of the agents. Implements `observe.Agents`."""

    def __init__(
        self,
        hub: Hub,
        journal: Journal,
        *,
        patience: float,
        running: Running | None = None,
        metrics: Metrics | None = None,
        tell: Callable[[], None] = _nobody,
        sleep: Callable[[float], Awaitable[None]] = trio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`patience`: seconds to wait, once a pass, for agents that are not connected.

        `running` is shown the attempts that are under way; `tell` is called whenever one begins or ends.
        `sleep` and what is drawn can be replaced for tests.
        """
        self._hub = hub
        self._journal = journal
        self._patience = patience
        self._running = Running() if running is None else running
        self._metrics = Metrics() if metrics is None else metrics
        self._tell = tell
        self._sleep = sleep
        self._draw = draw

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        wanted = set(nodes)
        if not wanted:
            return set()
        soon = min(QUIET, self._patience)
        connected = await self._hub.wait_connected(wanted, soon)
        if connected == wanted or self._patience <= soon:
            return connected
        log.info(
            f"waiting for agents, {self._patience:g}s at most", nodes=", ".join(sorted(wanted - connected))
        )
        return await self._hub.wait_connected(wanted, self._patience - soon)

    def connected(self) -> frozenset[str]:
        return self._hub.connected()

    def knows(self, node: str) -> bool:
        return self._hub.knows(node)

    def why_not_connected(self, node: str) -> Unknown:
        if not self._hub.knows(node):
            return Unknown(
                Reason.REVOKED,
                f"{node} was revoked, so its agent may not connect; "
                f"`trueup node rotate-token {node}` gives it another token",
            )
        if not self._hub.is_paired(node):
            return Unknown(
                Reason.AWAITING_PAIRING,
                f"{node} has never been paired; run its `trueup-agent join …` on the host",
            )
        return Unknown(
            Reason.AGENT_UNREACHABLE, f"{node} is not connected; is `trueup-agent run` running there?"
        )

    async def look(self, sync: DesiredSync, tree: bytes, owners: bytes = b"") -> TaskReport:
        task = look_task(uuid.uuid4().hex, sync, tree, owners)
        return await self._ask(sync.target.node, task, unnamed=Reason.OBSERVATION_FAILED)

    async def itemise(self, sync: DesiredSync, source: TreeSource) -> Itemising:
        """What a sync to the tree of `source` would do, changing nothing.

        Raises TaskFailed where the agent could not tell, AgentUnreachable, AgentTooOld.
        """
        observing = sync_task(uuid.uuid4().hex, sync, source.tree, observe=True)
        times = () if source.times else (NO_TIMES,)
        task = msgspec.structs.replace(observing, features=(*observing.features, ITEMISE, *times))
        task = source.with_owners(task)
        itemising = Itemising()
        report = await self._hub.run_task(sync.target.node, task, source, serve=itemising.serve)
        report = await _masked(report)
        if report.state == "FAILED":
            raise TaskFailed(report, unnamed=Reason.OBSERVATION_FAILED)
        if itemising.sums is None:
            raise AgentTooOld(
                f"the agent of the node {sync.target.node} is too old to say what a sync would do",
                hint="update trueup on that host and restart its agent",
            )
        itemising.sums = await trio.to_thread.run_sync(masked_sums, itemising.sums, KNOWN.mask)
        return itemising

    async def sync(
        self,
        sync: DesiredSync,
        source: TreeSource,
        retry: Retry,
        place: Place | None = None,
        *,
        node_bandwidth: float | None = None,
    ) -> TaskReport:
        """Bring a target to the tree of `source`; tries again while that can help.

        `place`, among those who are at work, is given back between attempts: a node that is in trouble
        holds up no other. `node_bandwidth`: bytes a second that all projects may send to the node, besides
        the project's own.

        The journal has it as one task with its attempts. Raises what the last attempt ended with:
        TaskFailed, AgentUnreachable and others; JournalUnavailable.
        """
        project, node = sync.project, sync.target.node
        limited = source.within(
            self._hub.throttles.of(
                project.id, node, project_rate=project.sync.bandwidth, node_rate=node_bandwidth
            ),
            project.sync.compression,
        )

        async def send(known_as: str, id: str, given: TreeSource) -> TaskReport:
            task = given.offered(sync_task(id, sync, given.tree, observe=False))
            report = await self._ask(node, task, given, unnamed=Reason.SYNC_FAILED, known_as=known_as)
            return told_of_owners(report, task, node)

        attempt = Attempts(limited, send)
        return await self._attempts(
            sync.id, node, project.id, retry, attempt, total_bytes=source.bytes, place=place
        )

    async def switch(self, sync: DesiredSync, tree: bytes, retry: Retry) -> TaskReport:
        """Switch a target to the release of `tree` that it keeps; nothing is sent. Recorded, and raises, as
        `sync`."""
        node = sync.target.node

        async def attempt(id: str) -> TaskReport:
            return await self._ask(node, sync_task(id, sync, tree, observe=False), unnamed=Reason.SYNC_FAILED)

        return await self._attempts(sync.id, node, sync.project.id, retry, attempt)

    async def run_command(self, run: NodeCommand) -> TaskReport:
        """Run an allowed command on a node, recorded and tried again as a sync is.

        What the command itself ends with is no reason to try again. Raises as `sync` does, and AgentTooOld.
        """

        async def attempt(id: str) -> TaskReport:
            command = Command(
                id=id,
                project=run.project,
                target_path=run.target_path,
                command=run.command,
                environment={
                    name: value.reveal() if isinstance(value, Secret) else value
                    for name, value in run.variables.items()
                },
                secret=tuple(name for name, value in run.variables.items() if isinstance(value, Secret)),
                timeout=run.timeout,
            )
            return await self._ask(run.node, command, unnamed=Reason.DEPLOY_FAILED)

        return await self._attempts(run.resource, run.node, run.project, run.retry, attempt)

    async def remove(self, resource: str, *, node: str, target_path: str) -> TaskReport:
        """Remove what was placed for a sync target that the spec no longer has; see `agent.removal`.

        `resource` is the id that it had; node and path are in its status file. Harmless where all is gone.
        Raises AgentUnreachable where the node is away, TaskFailed, AgentTooOld, JournalUnavailable.
        """
        project = resource.split("/")[2]

        async def attempt(id: str) -> TaskReport:
            removal = Removal(id=id, project=project, target_path=target_path)
            return await self._ask(node, removal, unnamed=Reason.PRUNE_FAILED)

        return await self._attempts(resource, node, project, Retry(attempts=1), attempt)

    async def _attempts(
        self,
        resource: str,
        node: str,
        project: str,
        retry: Retry,
        attempt: Callable[[str], Awaitable[TaskReport]],
        *,
        total_bytes: int = 0,
        place: Place | None = None,
    ) -> TaskReport:
        task = uuid.uuid4().hex
        await self._record(self._journal.create_task, task, resource, node, project=project)
        pace = Backoff(first=retry.backoff, longest=retry.max_backoff, draw=self._draw)
        while True:
            number = await self._record(self._journal.begin_attempt, task)
            id = f"{task}-{number}"
            try:
                with self._running.attempt(
                    task, number, total_bytes, partial(self._hub.traffic, id), resource=resource
                ):
                    report = await attempt(id)
            except TrueupError as error:
                self._metrics.count(BLOCKS, self._hub.traffic(id).blocks)
                failed = partial(
                    self._end, task, number, error.reason, str(error), getattr(error, "report", None)
                )
                if number < retry.attempts and _may_pass(error):
                    await self._record(failed, "RETRYING")
                    self._metrics.count(ATTEMPTS_AGAIN)
                    try:
                        if await self._wait_until_again(node, pace.next(), place):
                            continue
                    except BaseException:
                        await self._called_off(failed)
                        raise
                await self._record(failed, "FAILED")
                self._metrics.count(TASKS, state="FAILED")
                error.task = task  # type: ignore[attr-defined]
                raise
            except BaseException:  # called off, also from within nurseries, or a mistake of ours
                why = "Cancelled", "the primary gave the task up"
                await self._called_off(partial(self._end, task, number, *why, None))
                raise
            await self._record(self._end, task, number, "", "", report, "SUCCESS")
            self._metrics.count(TASKS, state="SUCCESS")
            self._metrics.count(BLOCKS, self._hub.traffic(id).blocks)
            return report

    async def _wait_until_again(self, node: str, pause: float, place: Place | None) -> bool:
        """Between two attempts; whether the node is there for another."""
        if place is not None:
            await place.give_back()
        await self._sleep(pause)
        connected = bool(await self.wait_connected([node]))
        if connected and place is not None:
            await place.take()
        return connected

    async def _called_off(self, end: Callable[[str], None]) -> None:
        """Nobody waits for the task any more: say so in the journal, and let who called it off go on."""
        with trio.CancelScope(shield=True), suppress(JournalUnavailable):
            await self._record(end, "FAILED")
        self._metrics.count(TASKS, state="FAILED")

    def _end(
        self,
        task: str,
        number: int,
        reason: str,
        message: str,
        report: TaskReport | None,
        state: Literal["SUCCESS", "FAILED", "RETRYING"],
    ) -> None:
        """Record how an attempt ended; in a worker thread."""
        self._journal.end_attempt(
            task,
            number,
            state,
            reason,
            message,
            log=log_of(report) if report is not None else "",
            details=report_details(report) if report is not None else {},
        )

    async def _record(self, write: Callable[..., T], *given: Any, **named: Any) -> T:
        written = await trio.to_thread.run_sync(partial(write, *given, **named))
        self._tell()
        return written

    async def _ask(
        self, node: str, work: Work, source: TreeSource | None = None, *, unnamed: Reason, known_as: str = ""
    ) -> TaskReport:
        # A task's attempts have its id, with their number.
        heard = partial(self._running.heard, work.id.rpartition("-")[0])
        report = await self._hub.run_task(node, work, source, heard=heard, known_as=known_as)
        report = await _masked(report)
        count_report(self._metrics, node, report, looks=isinstance(work, Task) and work.observe)
        if report.state == "FAILED":
            raise TaskFailed(report, unnamed=unnamed)
        return report


async def _masked(report: TaskReport) -> TaskReport:
    """In a worker thread, where there is something to look through: with many secrets that takes long."""
    if not (report.message or report.warnings or report.after):
        return report
    return await trio.to_thread.run_sync(masked, report, KNOWN.mask)


def _may_pass(error: TrueupError) -> bool:
    """Whether the same task may succeed when it is tried again."""
    if isinstance(error, TaskFailed):
        return error.reason in RETRYABLE_REASONS
    return isinstance(error, AgentUnreachable | TransferFailed | RemoteProtocolError)
