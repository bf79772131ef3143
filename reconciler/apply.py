"""Applying a plan: independent steps run concurrently, a failure blocks only what depends on it.

One step for each resource at a time follows from the plan, which holds one step for each resource. Each
step's start is in the journal before it acts, and its end before anything builds on it. Whoever applies a
plan may let go of it: what has begun goes on, and the rest is for another plan.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
import trio

from agent.failures import line_of, single
from reconciler.errors import JournalUnavailable, LeaseLost, TrueupError
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

    @property
    def warnings(self) -> Sequence[str]:
        """What there is to say of a step that succeeded."""
        warnings = self.details.get("warnings")
        return warnings if isinstance(warnings, list) else ()


class StepRecorder(Protocol):
    """The journal's part in applying a plan; both calls return once the record is durable."""

    async def begin(self, step: Step) -> int: ...

    async def end(self, record: int, step: Step, outcome: Outcome) -> None: ...


OnChange = Callable[[Step, Outcome | None], None]
"""Told when a step starts (None) and when it has ended."""

OnEnd = Callable[[Step, Outcome, int | None], None]
"""Told when a step has ended, with its number in the journal; None: it was blocked."""

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
    application = Application(plan, recorder, on_change=on_change)
    await application.run(executors, slot)
    return application.outcomes


class Application:
    """A plan that is being applied. `on_end`: told of each step that was begun and has ended."""

    def __init__(
        self,
        plan: Plan,
        recorder: StepRecorder,
        *,
        on_change: OnChange = lambda _step, _outcome: None,
        on_end: OnEnd = lambda _step, _outcome, _record: None,
    ) -> None:
        self._steps = {step.resource: step for step in plan.steps}
        self._recorder = recorder
        self._on_change = on_change
        self._on_end = on_end
        self._finished = {step.resource: trio.Event() for step in plan.steps}
        self._blocking = {finding.resource: finding.reason for finding in plan.findings if finding.blocks}
        self._order = {step.resource: position for position, step in enumerate(plan.steps)}
        self._tolerant = {step.resource for step in plan.steps if step.may_be_unreachable}
        self._waiting: dict[str, trio.CancelScope] = {}
        self._running: dict[str, trio.CancelScope] = {}
        self._called_off: dict[str, str] = {}
        self._begun: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.dropped: set[str] = set()
        """Resources whose steps do not begin any more."""
        self.records: dict[str, int] = {}
        """By resource, the journal's number of a step that was begun."""

    @property
    def left(self) -> dict[str, Step]:
        """Steps that have not ended, and are still to end."""
        return {
            id: step for id, step in self._steps.items() if id not in self.outcomes and id not in self.dropped
        }

    async def run(self, executors: Mapping[Action, Executor], slot: Slot) -> None:
        """Until every step has ended or was dropped. Never raises for a step's failure."""
        async with trio.open_nursery() as nursery:
            for step in self._steps.values():
                nursery.start_soon(self._run, step, executors[step.action], slot)

    def let_go(self, *, for_good: bool = False) -> None:
        """From now on nothing begins but what needs a build that has begun: its result would be lost.

        `for_good`: not even that.
        """
        builds = {id for id in self._begun if self._steps[id].action is Action.BUILD}
        for id, step in self._steps.items():  # by dependency
            if id in self._begun or id in self.outcomes or id in self.dropped:
                continue
            others = [each for each in step.depends_on if each in self._steps and each not in self.outcomes]
            if for_good or builds.isdisjoint(step.depends_on) or not self._begun.issuperset(others):
                self.dropped.add(id)
                if (scope := self._waiting.get(id)) is not None:
                    scope.cancel()

    def call_off(self, resource: str, why: str) -> None:
        """Break a step off, for something newer: it ends as failed, with the reason Superseded. One that has
        not begun does not begin."""
        if resource in self._begun:
            if (running := self._running.get(resource)) is not None:
                self._called_off[resource] = why
                running.cancel()
        elif resource in self.left:
            self.dropped.add(resource)
            if (waiting := self._waiting.get(resource)) is not None:
                waiting.cancel()

    async def _run(self, step: Step, executor: Executor, slot: Slot) -> None:
        resource = step.resource
        async with AsyncExitStack() as stack:
            blocker = None
            with trio.CancelScope() as waiting:
                self._waiting[resource] = waiting
                blocker = await self._blocker(step)
                if blocker is None and resource not in self.dropped:
                    await stack.enter_async_context(slot(step))
            del self._waiting[resource]
            if resource in self.dropped:
                self._finished[resource].set()
                return
            self._begun.add(resource)
            if blocker is not None:
                outcome = Outcome("blocked", Reason.DEPENDENCY_NOT_READY, blocker)
            else:
                outcome = await self._run_one(step, executor)
        self.outcomes[resource] = outcome
        self._finished[resource].set()
        self._on_change(step, outcome)
        self._on_end(step, outcome, self.records.get(resource))

    async def _blocker(self, step: Step) -> str | None:
        """Once all that comes first has ended: why the step cannot be carried out."""
        for dependency in step.depends_on:
            if self._order.get(dependency, -1) >= self._order[step.resource]:
                # A plan is ordered by dependency, so only a cycle looks like this: waiting would be for ever.
                return f"waits for {dependency}, which waits for it"
            if dependency in self._finished:
                await self._finished[dependency].wait()
        for dependency in step.depends_on:
            outcome = self.outcomes.get(dependency)
            if outcome is not None and outcome.reason in UNREACHABLE and dependency in self._tolerant:
                continue
            if outcome is not None and outcome.state != "succeeded":
                became = "failed" if outcome.state == "failed" else "is blocked"
                return f"waits for {dependency}, which {became}"
            if outcome is None and dependency in self._blocking:
                # The same words as in the pass in which it failed.
                backs_off = self._blocking[dependency] == Reason.BACKING_OFF
                return f"waits for {dependency}, which {'failed' if backs_off else 'is not in order'}"
        return None

    async def _run_one(self, step: Step, executor: Executor) -> Outcome:
        try:
            record = self.records[step.resource] = await self._recorder.begin(step)
        except JournalUnavailable as error:
            # Nothing was touched, and nothing may be: after a kill nobody would know that it was under way.
            return _not_done("blocked", step, error)
        self._on_change(step, None)
        with trio.CancelScope() as self._running[step.resource]:
            outcome = await _carry_out(step, executor)
        if self._running.pop(step.resource).cancelled_caught:
            outcome = Outcome("failed", Reason.SUPERSEDED, self._called_off[step.resource])
            log.info("step called off", resource=step.resource, why=outcome.message)
        try:
            await self._recorder.end(record, step, outcome)
        except JournalUnavailable as error:
            return _not_done("failed", step, error)
        return outcome


async def _carry_out(step: Step, executor: Executor) -> Outcome:
    try:
        details = await executor(step)
        return Outcome("succeeded", details=details, output=str(details.get("output", "")))
    except LeaseLost as error:
        # It was broken off: as after a kill, nobody knows how far it got, and it is no failure of its own.
        return _not_done("blocked", step, error)
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
    # The task in the journal that has the attempts and what they printed, where an agent was asked.
    task = {"task": error.task} if hasattr(error, "task") else {}
    details = {**getattr(error, "details", {}), **task}
    outcome = Outcome(state, reason, line_of(error), details, str(getattr(error, "output", "")))
    log.warning("step failed", resource=step.resource, reason=reason, error=outcome.message, **task)
    return outcome
