"""What the reading routes answer from: what the last pass found and what is recorded, both in memory.

None of them changes anything or waits for git, save that those of nodes look into the mirrors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeVar

import msgspec

from reconciler.control.state import ControlState
from reconciler.errors import TrueupError
from reconciler.looked import Looked
from reconciler.plan import Finding, Step
from reconciler.runner import Runner
from reconciler.spec.model import Spec
from reconciler.status.conditions import Condition, ConditionStatus, ConditionType, find_condition
from reconciler.status.documents import Recorded
from reconciler.web.endpoints import Asked, Model
from reconciler.web.refusals import RequestRefused

MAX_PAGE: Final = 500
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE, description="How many at most.")]
Name = Annotated[str, msgspec.Meta(max_length=255)]


class NoPassYet(TrueupError):
    """The spec is not known yet."""

    reason = "NoPassYet"
    retryable = True


class NotFound(RequestRefused):
    """There is nothing of that name."""

    reason = "NotFound"

    def __init__(self, what: str) -> None:
        super().__init__(404, f"{what} not found")


@dataclass(frozen=True, slots=True)
class Known:
    """Everything of one moment."""

    now: datetime
    spec: Spec
    looked: Looked
    recorded: Recorded
    steps: Mapping[str, Step]
    """What the last plan does, by resource."""
    findings: Mapping[str, Finding]
    """What it says of resources that it does nothing to."""

    @property
    def control(self) -> ControlState:
        return self.looked.control


def spec_of(runner: Runner) -> Spec:
    """Raises NoPassYet as long as no pass has read one."""
    if runner.primary.spec is None:
        raise _no_pass_yet(runner)
    return runner.primary.spec


def _no_pass_yet(runner: Runner) -> NoPassYet:
    why = f": {runner.last.error}" if runner.last is not None and runner.last.error else ""
    return NoPassYet(f"no pass has read the spec yet{why}", hint="try again in a moment, or look at the log")


def known(runner: Runner) -> Known:
    """Raises NoPassYet as long as no pass has looked at anything."""
    primary = runner.primary
    if primary.looked is None or primary.spec is None:
        raise _no_pass_yet(runner)
    looked = primary.looked
    steps = {step.resource: step for step in looked.plan.steps}
    return Known(primary.now(), looked.spec, looked, primary.status.known, steps, looked.findings())


class Paged(Asked, frozen=True, kw_only=True):
    """Names in their order, a page at a time."""

    limit: Limit = 100
    after: Annotated[str, msgspec.Meta(max_length=1024, description="`next` of the page before.")] = ""


class Page(Model, frozen=True, kw_only=True):
    """`next`: what `after` has to be for the page that follows; null: there is none."""

    next: str | None


def page_of(names: Sequence[str], query: Paged) -> tuple[Sequence[str], str | None]:
    """The names of a page, and what is `next`. The names are sorted."""
    following = [name for name in names if name > query.after]
    page = following[: query.limit]
    return page, (page[-1] if len(following) > len(page) else None)


class ConditionView(Model, frozen=True):
    """One thing that is true or not, and since when."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    since: datetime


def conditions_of(conditions: Sequence[Condition]) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=each.type,
            status=each.status,
            reason=each.reason,
            message=each.message,
            since=each.last_transition_time,
        )
        for each in conditions
    )


V = TypeVar("V", bound=Model)


def seen_as(view: type[V], thing: object) -> V:
    """What is answered of something whose fields have the same names; further ones it has are not told."""
    return msgspec.convert(thing, view, from_attributes=True)


class Readiness(Model, frozen=True):
    """The condition `Ready` in short; Unknown where nothing was recorded yet."""

    status: ConditionStatus
    reason: str
    message: str


def readiness_of(conditions: Sequence[Condition]) -> Readiness:
    ready = find_condition(conditions, ConditionType.READY)
    if ready is None:
        return Readiness(status="Unknown", reason="", message="")
    return Readiness(status=ready.status, reason=ready.reason, message=ready.message)


class Planned(Model, frozen=True):
    """What the last pass had to do with a resource, done by now or not, or what it said of it instead."""

    action: str | None
    """Null: nothing; then `reason` is a stable word and `message` says more."""
    reason: str
    message: str
    changes: tuple[str, ...]
    """Names of the inputs that changed, never values."""


def planned_of(known: Known, resource: str) -> Planned | None:
    """None: it was in order."""
    step, finding = known.steps.get(resource), known.findings.get(resource)
    if step is not None:
        return Planned(action=step.action.value, reason=step.reason, message="", changes=step.changes)
    if finding is not None:
        return Planned(action=None, reason=finding.reason, message=finding.message, changes=())
    return None
