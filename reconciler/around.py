"""Planning around steps of earlier passes that still run. Pure.

No resource has two steps at a time. What is under way gets none, and what depends on it waits for its end,
which is followed by a pass; everything else goes on.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from reconciler.plan import Action, Finding, Plan, Step
from reconciler.prune import Removable
from reconciler.status.conditions import Reason

DOING: Mapping[Action, str] = {
    Action.RELEASE: "released",
    Action.BUILD: "built",
    Action.PUSH: "pushed",
    Action.EXPORT: "exported",
    Action.SYNC: "synced",
    Action.DEPLOY: "deployed",
    Action.ADOPT: "adopted",
    Action.REMOVE: "removed",
    Action.FORGET: "forgotten",
}


def finding_under_way(step: Step, resource: str) -> Finding:
    """Of a resource whose step was begun by an earlier pass."""
    return Finding(resource, Reason.PROGRESSING, f"is being {DOING[step.action]} ({step.reason})")


def around(
    plan: Plan, under_way: Collection[str], removable: Removable | None = None
) -> tuple[Plan, frozenset[str]]:
    """The plan without what has to wait for these resources, and the resources that wait.

    So does what is to be at the place of one of them that left the spec, or has another name there now.
    """
    if not under_way:
        return plan, frozenset()
    places = removable or Removable()
    taken = {place: id for id, place in places.places.items() if id in under_way}
    waiting: dict[str, str] = {}
    for step in plan.steps:  # by dependency
        first = (*step.depends_on, taken.get(places.claims.get(step.resource, ""), ""))
        blocker = next((id for id in first if id in under_way or id in waiting), None)
        if blocker is not None:
            waiting[step.resource] = waiting.get(blocker, blocker)
    findings = tuple(
        Finding(id, Reason.PROGRESSING, f"waits for {blocker}, which is under way")
        for id, blocker in waiting.items()
    )
    steps = tuple(step for step in plan.steps if step.resource not in waiting)
    return replace(plan, steps=steps, findings=(*plan.findings, *findings)), frozenset(waiting)
