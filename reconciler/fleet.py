"""The agents of a spec: who is enrolled, who is connected, and what is asked of them."""

import uuid
from collections.abc import Iterable

import trio

from agent.errors import RemoteProtocolError, TransferFailed, TrueupError
from agent.wire.messages import Task, TaskReport
from reconciler.desired import DesiredSync
from reconciler.errors import StepFailed
from reconciler.observation import Unknown
from reconciler.spec.model import Retry
from reconciler.status.conditions import Reason
from reconciler.sync.hub import AgentUnreachable, Hub
from reconciler.sync.serving import TreeSource

RETRYABLE_REASONS = frozenset(
    {
        Reason.AGENT_UNREACHABLE,
        Reason.SYNC_FAILED,
        Reason.PROTOCOL_ERROR,
        # The agents' own: the target or the source changed under the task, or something else uses it.
        "Busy",
        "SourceChanged",
        "TargetBusy",
        "TargetChanged",
        "VerificationFailed",
    }
)


class SyncFailed(StepFailed):
    """The agent reported that it could not bring a target to its tree; the reason is the agent's."""

    def __init__(self, report: TaskReport) -> None:
        super().__init__(report.message or "the agent could not complete the task")
        self.agent_reason = report.reason
        self.details = report_details(report)

    @property
    def reason(self) -> str:  # type: ignore[override]
        return self.agent_reason or Reason.SYNC_FAILED


class Fleet:
    """What a pass needs of the agents. Implements `observe.Agents`."""

    def __init__(self, hub: Hub, *, patience: float) -> None:
        """`patience`: seconds to wait, once a pass, for agents that are not connected."""
        self._hub = hub
        self._patience = patience

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        wanted = set(nodes)
        if not wanted:
            return set()
        return await self._hub.wait_connected(wanted, self._patience)

    def why_not_connected(self, node: str) -> Unknown:
        if not self._hub.is_paired(node):
            return Unknown(
                Reason.AWAITING_PAIRING,
                f"{node} has never been paired; run its `trueup-agent join …` on the host",
            )
        return Unknown(
            Reason.AGENT_UNREACHABLE, f"{node} is not connected; is `trueup-agent run` running there?"
        )

    async def look(self, sync: DesiredSync, tree: bytes) -> TaskReport:
        return await self._hub.run_task(sync.target.node, self._task(sync, tree, observe=True), None)

    async def sync(self, sync: DesiredSync, source: TreeSource, retry: Retry) -> TaskReport:
        """Bring a target to the tree of `source`; tries again while that can help."""
        delay = retry.backoff
        for attempt in range(1, retry.attempts + 1):
            try:
                task = self._task(sync, source.tree, observe=False)
                report = await self._hub.run_task(sync.target.node, task, source)
                if report.state == "SUCCESS":
                    return report
                error: TrueupError = SyncFailed(report)
                retryable = report.reason in RETRYABLE_REASONS
            except (AgentUnreachable, TransferFailed, RemoteProtocolError) as lost:
                error, retryable = lost, True
            if not retryable or attempt == retry.attempts:
                raise error
            await trio.sleep(delay)
            delay = min(delay * 2, retry.max_backoff)
            if not await self.wait_connected([sync.target.node]):
                raise error
        raise AssertionError("unreachable: the last attempt returns or raises")

    @staticmethod
    def _task(sync: DesiredSync, tree: bytes, *, observe: bool) -> Task:
        project, target = sync.project, sync.target
        assert target.strategy != "release"  # unbuilt, so it never gets here
        rules = project.sync
        return Task(
            id=uuid.uuid4().hex,
            project=project.id,
            target_path=target.target_path,
            observe=observe,
            strategy=target.strategy,
            tree=tree,
            rendered=sync.rendered,
            # What a target leaves out is not trueup's there: not to be compared, nor deleted as foreign.
            ignore=(*sync.ignore, *target.exclude),
            ignore_permissions=rules.ignore_permissions,
            delete_foreign=rules.delete_foreign,
            max_delete=rules.max_delete,
            on_local_edit=rules.on_local_edit,
            durability=rules.durability,
            after=project.after,
        )


def report_details(report: TaskReport) -> dict[str, str | int | bool | list[str]]:
    """What of a report goes into the journal and the status file."""
    return {
        "tree": report.established.hex(),
        "files_written": report.files_written,
        "files_deleted": report.files_deleted,
        "foreign": report.foreign,
        "bytes_received": report.bytes_received,
        "bytes_reused": report.bytes_reused,
        "local_edits": report.local_edits,
        "warnings": list(report.warnings),
        "after": [f"{result.name}: exit code {result.exit_code}" for result in report.after],
    }
