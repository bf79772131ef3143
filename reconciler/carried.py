"""What earlier passes of a running primary leave to the next one: steps that run, and ends to tell. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.back_off import keys_of
from reconciler.desired_model import Desired
from reconciler.plan import Action, Plan, Step
from reconciler.status.conditions import Reason

if TYPE_CHECKING:
    from reconciler.apply import Outcome


@dataclass(frozen=True, slots=True)
class End:
    """A step that ended when its pass was over."""

    step: Step
    key: str
    """What it tried; see `back_off.keys_of`."""
    outcome: "Outcome"
    record: int
    """Its number in the journal."""


@dataclass(frozen=True, slots=True)
class Carried:
    """As it is when a pass begins; a step that ends later is still under way for this pass."""

    under_way: Mapping[str, Step] = field(default_factory=dict)
    """By resource."""
    records: frozenset[int] = frozenset()
    """Their numbers in the journal."""
    ended: Mapping[str, End] = field(default_factory=dict)
    """By resource, what no pass has told yet."""


def outdated(carried: Carried, desired: Desired, is_frozen: Callable[[str], bool]) -> dict[str, str]:
    """Transfers that still run, of what is not wanted any more or is to be left alone: by resource, why. What
    they have placed stays, and what comes next carries on from it.

    Where it could not be found out what is wanted now, they go on; so does everything that is not a transfer.
    """
    resources = {resource.id: resource for resource in desired.resources}
    found: dict[str, str] = {}
    for id, step in carried.under_way.items():
        if step.action is not Action.SYNC:
            continue
        resource = resources.get(id)
        if resource is None:
            if not is_frozen(id):
                found[id] = "it left the spec"
        elif resource.setback is not None and resource.setback.reason == Reason.SUSPENDED:
            found[id] = resource.setback.message
        elif resource.hash is not None and str(resource.hash) != step.hash:
            found[id] = f"{resource.revision or 'something else'} is to be there now"
    return found


def ends_to_tell(
    carried: Carried,
    plan: Plan,
    desired: Desired,
    outcomes: Collection[str],
    left: Collection[str],
    held: Mapping[str, Step],
) -> dict[str, End]:
    """The ends that this pass tells as if they were its own: they speak of what is wanted now as well.

    A success, where nothing is left to do; a failure, where the same thing would be tried again, and its time
    has not come. `held` are the steps that this pass leaves out for that reason.
    """
    if not carried.ended:
        return {}
    hashes = {resource.id: str(resource.hash) for resource in desired.resources if resource.hash is not None}
    keys = keys_of(Plan("", (*plan.steps, *held.values()), ()), held)
    waits = {finding.resource for finding in plan.findings} - held.keys()
    busy = {*outcomes, *carried.under_way, *waits}
    found: dict[str, End] = {}
    for id, end in carried.ended.items():
        if id in busy:
            continue
        if end.outcome.state == "succeeded":
            if id not in left and hashes.get(id) == end.step.hash:
                found[id] = end
        elif keys.get(id) == end.key:
            found[id] = end
    return found
