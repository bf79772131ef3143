"""What became of each resource between two states of the status files, for the journal's events. Pure."""

from dataclasses import dataclass
from typing import Literal

from reconciler.status.conditions import Conditions, ConditionType, condition_status, find_condition
from reconciler.status.documents import Document, Recorded

Kind = Literal["failed", "recovered", "degraded"]
"""`failed`: not as the spec asks. `degraded`: nobody knows whether it is, or it is and is not healthy.
`recovered`: all is well again."""

_KINDS: dict[str, Kind] = {"True": "recovered", "False": "failed", "Unknown": "degraded"}


@dataclass(frozen=True, slots=True)
class Transition:
    """A resource whose `Ready` has another status, or another reason for the same bad one; or that is as the
    spec asks and became ill, or well again."""

    kind: Kind
    resource: str
    reason: str
    message: str


def transitions(before: Recorded, after: Recorded) -> list[Transition]:
    """The transitions by resource id. What starts out well is none."""
    found: list[Transition] = []
    for document in sorted(after.documents(), key=lambda each: each.id):
        new = find_condition(document.conditions, ConditionType.READY)
        known = before.get(document.id)
        if new is None or known is document:
            continue
        old = find_condition(known.conditions, ConditionType.READY) if known is not None else None
        was = (old.status, old.reason) if old is not None else ("True", "")
        if new.status != was[0] or (new.status != "True" and new.reason != was[1]):
            found.append(Transition(_KINDS[new.status], document.id, new.reason, new.message))
        elif (change := _health(known.conditions if known is not None else (), document)) is not None:
            found.append(change)
    return found


def _health(before: Conditions, document: Document) -> Transition | None:
    new = find_condition(document.conditions, ConditionType.HEALTHY)
    old = condition_status(before, ConditionType.HEALTHY)
    if new is None or new.status == old:
        return None
    if new.status == "False":
        return Transition("degraded", document.id, new.reason, new.message)
    if new.status == "True" and old == "False":
        return Transition("recovered", document.id, new.reason, new.message)
    return None
