"""How a node is, and what has drifted: one answer for the page, the API and the metrics. Pure."""

from collections.abc import Iterable
from typing import Literal

from reconciler.control.records import Record
from reconciler.status.conditions import (
    WAITS,
    Condition,
    Conditions,
    ConditionType,
    Reason,
    find_condition,
)
from reconciler.status.documents import NodeStatus, SyncStatus

Health = Literal["revoked", "unpaired", "away", "degraded", "healthy"]


def health_of(
    status: NodeStatus, syncs: Iterable[SyncStatus], *, connected: bool, revoked: Record | None
) -> Health:
    """`degraded`: it is connected, and something on it failed; what only waits is in order."""
    if revoked is not None:
        return "revoked"
    if not status.certificate:
        return "unpaired"
    if not connected:
        return "away"
    return "degraded" if any(failed(each.conditions) for each in syncs) else "healthy"


def failed(conditions: Conditions) -> bool:
    """Whether a resource is not as the spec asks, and does not just wait for something or somebody."""
    ready = find_condition(conditions, ConditionType.READY)
    return ready is not None and ready.status == "False" and ready.reason not in WAITS


def drift_of(conditions: Conditions) -> Condition | None:
    """What says that a resource is not as trueup left it, where that is reported and not healed."""
    ready = find_condition(conditions, ConditionType.READY)
    return ready if ready is not None and ready.reason == Reason.DRIFT_DETECTED else None
