"""When what failed is tried again: each resource in its own time. Pure: times are given.

They are those of a monotonic clock. It is in memory only: after a restart everything is tried once more.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

from reconciler.hashing import digest
from reconciler.plan import UNREACHABLE, Action, Finding, Plan, Step
from reconciler.status.conditions import Reason

if TYPE_CHECKING:
    from agent.backoff import Backoff

FIRST: Final = 10.0
"""Seconds, at most, until something that failed once is tried again; doubled each time."""

LONGEST: Final = 600.0
"""Seconds, at most, however often it failed; the interval between passes where that is longer."""

NO_FAILURES: Final = frozenset({*UNREACHABLE, Reason.SUPERSEDED})
"""Reasons of a step that say nothing against trying it again: it is planned only where its host is there."""


@dataclass(slots=True)
class Failure:
    """What failed, and when it is tried again."""

    key: str
    pace: "Backoff"
    count: int = 0
    reason: str = ""
    retry_at: float = 0.0
    waits: bool = True
    """False: a pass has it among its steps, and it has not ended yet."""


class BackOff:
    """The failures of a running primary, by resource. `new_pace` gives the pauses of one that fails."""

    def __init__(self, new_pace: Callable[[], "Backoff"]) -> None:
        self._new_pace = new_pace
        self._failures: dict[str, Failure] = {}

    def failed(self, resource: str, key: str, reason: str, now: float) -> float | None:
        """Gives the seconds until it is tried again; None: that does not depend on it."""
        if reason in NO_FAILURES:
            self._failures.pop(resource, None)
            return None
        known = self._failures.get(resource)
        if known is None or known.key != key:
            known = Failure(key, self._new_pace())
            self._failures[resource] = known
        pause = known.pace.next()
        known.count, known.reason, known.retry_at, known.waits = known.count + 1, reason, now + pause, True
        return pause

    def succeeded(self, resource: str, dependents: Iterable[str], now: float) -> None:
        """What depends on it may do better now, and is not kept waiting."""
        self._failures.pop(resource, None)
        for dependent in dependents:
            if (failure := self._failures.get(dependent)) is not None:
                failure.retry_at = min(failure.retry_at, now)

    def retry_at(self) -> float:
        """When the first of them is due."""
        return min((each.retry_at for each in self._failures.values() if each.waits), default=inf)

    def failing(self) -> frozenset[str]:
        return frozenset(self._failures)

    def waits(self, step: Step, key: str, now: float) -> Failure | None:
        """Why this step is not to be tried yet."""
        known = self._failures.get(step.resource)
        return known if known is not None and known.key == key and known.retry_at > now else None

    def try_again(self, resources: Collection[str]) -> None:
        """A pass has these among its steps: nobody needs to be woken for them."""
        for resource in resources:
            if (failure := self._failures.get(resource)) is not None:
                failure.waits = False

    def keep(self, resources: Collection[str]) -> None:
        """Forget all but these: of what nothing is planned, nothing fails."""
        for resource in self._failures.keys() - set(resources):
            del self._failures[resource]


def keys_of(plan: Plan, resources: Collection[str] | None = None) -> dict[str, str]:
    """By resource, or by some of them, what its step is about to try: something else may be tried at once."""
    needed: dict[str, list[str]] = {}
    for step in plan.steps:
        for dependency in step.depends_on:
            needed.setdefault(dependency, []).append(step.hash)
    return {
        step.resource: _key(step, needed)
        for step in plan.steps
        if resources is None or step.resource in resources
    }


def _key(step: Step, needed: Mapping[str, list[str]]) -> str:
    what = step.hash or step.reason
    if step.action is Action.BUILD:
        # It is made of what is synced from it.
        what = digest(sorted(needed.get(step.resource, ())))
    return f"{step.action.value} {what}"


def without_failing(
    plan: Plan,
    back_off: BackOff,
    named: Collection[str],
    now: float,
    *,
    clock: Callable[[float], datetime],
    untold: Collection[str] = (),
) -> tuple[Plan, dict[str, Step]]:
    """The plan without what failed and is not due yet, and the steps that were taken out.

    The `named` ones are tried at once, with what they depend on. What is `untold` is told first, however late
    it is. `clock`: what people call a time.
    """
    failing = back_off.failing()
    if not failing:
        return plan, {}
    keys = keys_of(plan, failing)
    steps = {step.resource: step for step in plan.steps}
    at_once = _with_dependencies(named, steps)
    held: dict[str, Step] = {}
    findings: list[Finding] = []
    for id, key in keys.items():
        failure = back_off.waits(steps[id], key, -inf if id in untold else now)
        if failure is None or id in at_once:
            continue
        held[id] = steps[id]
        times = "once" if failure.count == 1 else f"{failure.count} times"
        again = clock(max(failure.retry_at, now))
        message = f"failed {times} ({failure.reason}), tried again at {again:%H:%M:%S} UTC"
        findings.append(Finding(id, Reason.BACKING_OFF, message))
    left = tuple(step for step in plan.steps if step.resource not in held)
    return replace(plan, steps=left, findings=(*plan.findings, *findings)), held


def _with_dependencies(named: Iterable[str], steps: Mapping[str, Step]) -> set[str]:
    found: set[str] = set()
    waiting = list(named)
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting += steps[id].depends_on if id in steps else ()
    return found
