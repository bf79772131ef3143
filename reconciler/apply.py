"""Applying a plan: independent steps run concurrently, a failure blocks only what depends on it.

One step for each resource at a time follows from the plan, which holds one step for each resource. Each
step's start is in the journal before it acts, and its end before anything builds on it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
import trio

from reconciler.errors import TrueupError
from reconciler.plan import Action, Plan, Step
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


class StepRecorder(Protocol):
    """The journal's part in applying a plan; both calls return once the record is durable."""

    async def begin(self, step: Step) -> int: ...

    async def end(self, record: int, step: Step, outcome: Outcome) -> None: ...


OnChange = Callable[[Step, Outcome | None], None]
"""Told when a step starts (None) and when it has ended."""


async def apply_plan(
    plan: Plan,
    executors: Mapping[Action, Executor],
    recorder: StepRecorder,
    *,
    max_parallel: int,
    on_change: OnChange = lambda _step, _outcome: None,
) -> dict[str, Outcome]:
    """Run every step of the plan; returns the outcome by resource. Never raises for a step's failure."""
    outcomes: dict[str, Outcome] = {}
    finished = {step.resource: trio.Event() for step in plan.steps}
    blocking = {finding.resource: finding for finding in plan.findings if finding.blocks}
    order = {step.resource: position for position, step in enumerate(plan.steps)}
    limiter = trio.CapacityLimiter(max_parallel)

    async def run(step: Step) -> None:
        blocker = None
        for dependency in step.depends_on:
            if order.get(dependency, -1) >= order[step.resource]:
                # A plan is ordered by dependency, so only a cycle looks like this: waiting would be for ever.
                blocker = f"waits for {dependency}, which waits for it"
            elif dependency in finished:
                await finished[dependency].wait()
        blocker = blocker or _blocker(step, outcomes, blocking)
        if blocker is not None:
            outcome = Outcome("blocked", Reason.DEPENDENCY_NOT_READY, blocker)
        else:
            async with limiter:
                outcome = await _run_one(step, executors[step.action], recorder, on_change)
        outcomes[step.resource] = outcome
        finished[step.resource].set()
        on_change(step, outcome)

    async with trio.open_nursery() as nursery:
        for step in plan.steps:
            nursery.start_soon(run, step)
    return outcomes


def _blocker(step: Step, outcomes: Mapping[str, Outcome], blocking: Mapping[str, object]) -> str | None:
    for dependency in step.depends_on:
        outcome = outcomes.get(dependency)
        if outcome is not None and outcome.state != "succeeded":
            return f"waits for {dependency}, which {'failed' if outcome.state == 'failed' else 'is blocked'}"
        if outcome is None and dependency in blocking:
            return f"waits for {dependency}, which is not in order"
    return None


async def _run_one(step: Step, executor: Executor, recorder: StepRecorder, on_change: OnChange) -> Outcome:
    record = await recorder.begin(step)
    on_change(step, None)
    try:
        outcome = Outcome("succeeded", details=await executor(step))
    except TrueupError as error:
        outcome = Outcome("failed", error.reason, str(error), getattr(error, "details", {}))
        log.warning("step failed", resource=step.resource, reason=error.reason, error=str(error))
    except OSError as error:
        # The disk of the primary itself: this step could not run, the others may.
        outcome = Outcome(
            "failed", Reason.INTERNAL_ERROR, f"{error.strerror}: {error.filename or step.resource}"
        )
        log.warning("step failed", resource=step.resource, reason=outcome.reason, error=outcome.message)
    await recorder.end(record, step, outcome)
    return outcome
