"""The journal's part in a pass: each step's start before it acts, its end before anything builds on it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import trio

from reconciler.apply import Outcome
from reconciler.desired_model import AnyDesired, Desired, DesiredService, DesiredSync, DesiredTarget, Revision
from reconciler.hashing import Inputs
from reconciler.journal import Journal, StepRecord
from reconciler.journal_events import Event
from reconciler.metrics.declared import STEP_DURATION, STEPS
from reconciler.metrics.registry import Metrics
from reconciler.overtaken import mark_of
from reconciler.plan import ADOPTED, Action, Step
from reconciler.recording import StepResult, place_of, step_result
from reconciler.secret_reads import ReadFor, SecretRead, reads_of
from reconciler.status.documents import Recorded


def _nobody() -> None:
    """For callers whom nobody watches."""


class JournalRecorder:
    """Implements `apply.StepRecorder` on a journal, and collects what the steps of a pass established."""

    def __init__(
        self,
        journal: Journal,
        pass_id: int,
        desired: Desired,
        now: Callable[[], datetime],
        tell: Callable[[], None] = _nobody,
        metrics: Metrics | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        self._metrics = Metrics() if metrics is None else metrics
        self._began: dict[int, float] = {}
        self._recorded = Recorded() if recorded is None else recorded
        self._journal = journal
        self._tell = tell
        self._now = now
        self._pass = pass_id
        self._resources: dict[str, AnyDesired] = {resource.id: resource for resource in desired.resources}
        self.revision_of: Callable[[AnyDesired], Revision | None] = lambda resource: resource.revision
        """Which revision a resource runs: its tag may get another number than was planned."""
        self._followers: dict[str, list[str]] = {}
        for service in desired.services().values():
            for sync in service.follows:
                self._followers.setdefault(sync, []).append(service.id)
        self._ended: list[tuple[str, int]] = []
        self._results: list[StepResult] = []

    @classmethod
    async def start(
        cls,
        journal: Journal,
        desired: Desired,
        now: Callable[[], datetime],
        tell: Callable[[], None] = _nobody,
        metrics: Metrics | None = None,
        recorded: Recorded | None = None,
    ) -> "JournalRecorder":
        """`tell` is called whenever the journal has something new. `recorded` is what git knows."""
        pass_id = await trio.to_thread.run_sync(journal.begin_pass, desired.spec_revision)
        return cls(journal, pass_id, desired, now, tell, metrics, recorded)

    async def begin(self, step: Step) -> int:
        resource = self._resources.get(step.resource)
        record = await trio.to_thread.run_sync(
            lambda: self._journal.begin_step(
                self._pass,
                step.resource,
                step.action.value,
                step.hash,
                step.reason,
                revision=str(resource.revision or "") if resource is not None else "",
                inputs=resource.inputs if resource is not None else Inputs(),
                reads=_reads(step, resource),
                known=mark_of(step.resource, self._recorded),
                place=place_of(resource) if resource is not None else {},
            )
        )
        self._began[record] = trio.current_time()
        self._tell()
        return record

    async def end(self, record: int, step: Step, outcome: Outcome) -> None:
        if outcome.state == "blocked":
            return
        state, action = outcome.state, step.action.value
        self._metrics.count(STEPS, action=action, outcome=state)
        if (began := self._began.pop(record, None)) is not None:
            self._metrics.observe(STEP_DURATION, trio.current_time() - began, action=action)
        resource = self._resources.get(step.resource)
        if resource is not None:
            resource = replace(resource, revision=self.revision_of(resource))
        result = step_result(
            step,
            resource,
            outcome.details,
            at=self._now(),
            followers=self._followers.get(step.resource, ()),
        )
        await trio.to_thread.run_sync(
            lambda: self._journal.end_step(
                record, state, outcome.reason, outcome.message, _own_part(result), outcome.output
            )
        )
        self._tell()
        self._ended.append((step.resource, record))
        if state == "succeeded":
            self._results.append(result)

    def results(self, resources: Collection[str]) -> list[StepResult]:
        """What the steps of these resources established, in the order in which they succeeded."""
        return [result for result in self._results if result.resource in resources]

    async def finish(
        self, outcomes: Mapping[str, Outcome], others: Iterable[int], changes: Iterable[Event]
    ) -> None:
        """The status branch tells these outcomes now, and what `others` of earlier passes left untold."""
        failed = any(outcome.state != "succeeded" for outcome in outcomes.values())
        told = [*(record for resource, record in self._ended if resource in outcomes), *others]
        await trio.to_thread.run_sync(self._journal.mark_published, told)
        await trio.to_thread.run_sync(self._journal.record_events, list(changes))
        await trio.to_thread.run_sync(self._journal.end_pass, self._pass, "failed" if failed else "succeeded")
        self._tell()


def _reads(step: Step, resource: AnyDesired | None) -> tuple[SecretRead, ...]:
    """The secrets that leave with a step; those that another system exports are never in our hands."""
    match resource, step.action:
        case DesiredService(), action if action is Action.DEPLOY or step.reason == ADOPTED:
            return reads_of(resource.id, ReadFor.DEPLOY, resource.merged.variables.values())
        case DesiredSync(), Action.SYNC:
            return tuple(
                read
                for path, merged in resource.merged.items()
                for read in reads_of(f"{resource.id} {path}", ReadFor.RENDER, merged.variables.values())
            )
        case DesiredTarget(), Action.PUSH:
            return reads_of(resource.id, ReadFor.PUSH, resource.values.values())
        case DesiredTarget(), Action.EXPORT if resource.origin is not None:
            keys = tuple(sorted({key.key for key in resource.target.keys}))
            read = SecretRead(resource.id, ReadFor.EXPORT, resource.target.source, "", keys, "github_actions")
            return (read,)
    return ()


_IN_COLUMNS = frozenset({"resource", "action", "at", "revision", "hash", "public", "keyed"})


def _own_part(result: StepResult) -> Mapping[str, Any]:
    """What of a result the journal has no column for."""
    builtins: dict[str, Any] = msgspec.to_builtins(result)
    builtins["details"] = {name: value for name, value in result.details.items() if name != "output"}
    return {name: value for name, value in builtins.items() if name not in _IN_COLUMNS}


def result_of(record: StepRecord) -> StepResult:
    """The result of a step that succeeded, as the journal kept it."""
    return msgspec.convert(
        {
            **record.result,
            "resource": record.resource,
            "action": record.action,
            "at": datetime.fromisoformat(record.ended_at),
            "revision": record.revision,
            "hash": record.config_hash,
            "public": dict(record.inputs.public),
            "keyed": dict(record.inputs.keyed),
        },
        StepResult,
    )
