"""Applying a plan: independent steps run concurrently, a failure blocks only what depends on it.

One step for each resource at a time follows from the plan, which holds one step for each resource. Each
step's start is in the journal before it acts, and its end before anything builds on it.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
import trio

from agent.failures import line_of, single
from reconciler.errors import JournalUnavailable, TrueupError
from reconciler.plan import UNREACHABLE, Action, Plan, Step
from reconciler.status.conditions import Reason

log: structlog.stdlib.BoundLogger = structlog.get_logger()

State = Literal["succeeded", "failed", "blocked"]
Details = Mapping[str, str | int | bool | list[str]]
"""What a step found out that its status file tells: a tree digest, counts, an exit code."""

Executor = Callable[[Step], Awaitable[Details]]
"""Carries out one kind of step; raises a `TrueupError` when the goal was not reached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    state: State
    reason: str = Reason.RECONCILIATION_SUCCEEDED
    message: str = ""
    details: Details = field(default_factory=dict)
    output: str = ""
    """A masked excerpt of what was printed, also where that failed."""


class StepRecorder(Protocol):
    """The journal's part in applying a plan; both calls return once the record is durable."""

    async def begin(self, step: Step) -> int: ...

    async def end(self, record: int, step: Step, outcome: Outcome) -> None: ...


OnChange = Callable[[Step, Outcome | None], None]
"""Told when a step starts (None) and when it has ended."""

Slot = Callable[[Step], AbstractAsyncContextManager[object]]
"""Entered for as long as a step is under way: it waits until the step may begin."""


async def apply_plan(
    plan: Plan,
    executors: Mapping[Action, Executor],
    recorder: StepRecorder,
    *,
    slot: Slot,
    on_change: OnChange = lambda _step, _outcome: None,
) -> dict[str, Outcome]:
    """Run every step of the plan; returns the outcome by resource. Never raises for a step's failure."""
    outcomes: dict[str, Outcome] = {}
    finished = {step.resource: trio.Event() for step in plan.steps}
    blocking = {finding.resource for finding in plan.findings if finding.blocks}
    order = {step.resource: position for position, step in enumerate(plan.steps)}
    tolerant = {step.resource for step in plan.steps if step.may_be_unreachable}

    async def run(step: Step) -> None:
        blocker = None
        for dependency in step.depends_on:
            if order.get(dependency, -1) >= order[step.resource]:
                # A plan is ordered by dependency, so only a cycle looks like this: waiting would be for ever.
                blocker = f"waits for {dependency}, which waits for it"
            elif dependency in finished:
                await finished[dependency].wait()
        blocker = blocker or _blocker(step, outcomes, blocking, tolerant)
        if blocker is not None:
            outcome = Outcome("blocked", Reason.DEPENDENCY_NOT_READY, blocker)
        else:
            async with slot(step):
                outcome = await _run_one(step, executors[step.action], recorder, on_change)
        outcomes[step.resource] = outcome
        finished[step.resource].set()
        on_change(step, outcome)

    async with trio.open_nursery() as nursery:
        for step in plan.steps:
            nursery.start_soon(run, step)
    return outcomes


def _blocker(
    step: Step, outcomes: Mapping[str, Outcome], blocking: Collection[str], tolerant: Collection[str]
) -> str | None:
    for dependency in step.depends_on:
        outcome = outcomes.get(dependency)
        if outcome is not None and outcome.reason in UNREACHABLE and dependency in tolerant:
            continue
        if outcome is not None and outcome.state != "succeeded":
            return f"waits for {dependency}, which {'failed' if outcome.state == 'failed' else 'is blocked'}"
        if outcome is None and dependency in blocking:
            return f"waits for {dependency}, which is not in order"
    return None


async def _run_one(step: Step, executor: Executor, recorder: StepRecorder, on_change: OnChange) -> Outcome:
    try:
        record = await recorder.begin(step)
    except JournalUnavailable as error:
        # Nothing was touched, and nothing may be: after a kill nobody would know that it was under way.
        return _not_done("blocked", step, error)
    on_change(step, None)
    outcome = await _carry_out(step, executor)
    try:
        await recorder.end(record, step, outcome)
    except JournalUnavailable as error:
        return _not_done("failed", step, error)
    return outcome


async def _carry_out(step: Step, executor: Executor) -> Outcome:
    try:
        details = await executor(step)
        return Outcome("succeeded", details=details, output=str(details.get("output", "")))
    except (TrueupError, OSError) as error:
        # An OSError is the primary's own disk or network: this step could not run, the others may.
        return _not_done("failed", step, error)
    except ExceptionGroup as group:
        cause = single(group)
        if not isinstance(cause, TrueupError | OSError):
            raise
        return _not_done("failed", step, cause)


def _not_done(state: State, step: Step, error: TrueupError | OSError) -> Outcome:
    reason = error.reason if isinstance(error, TrueupError) else Reason.INTERNAL_ERROR
    outcome = Outcome(
        state, reason, line_of(error), getattr(error, "details", {}), str(getattr(error, "output", ""))
    )
    log.warning("step failed", resource=step.resource, reason=reason, error=outcome.message)
    return outcome
