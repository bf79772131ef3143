"""Transitions between two states of the status files, as the journal's events tell them."""

from datetime import UTC, datetime

import pytest

from reconciler.status.conditions import ConditionStatus, set_condition
from reconciler.status.documents import Recorded, ServiceStatus
from reconciler.status.transitions import Transition, transitions

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEB = "services/staging/web"


def state(status: ConditionStatus | None, reason: str = "R") -> Recorded:
    if status is None:
        return Recorded()
    conditions = set_condition((), "Ready", status, reason, "why", now=NOW)
    return Recorded().put(ServiceStatus(id=WEB, conditions=conditions))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (state(None), state("True"), None),
        (state("True"), state("True", "Other"), None),
        (state("False"), state("False"), None),
        (state("False"), state(None), None),
        (state(None), state("False"), "failed"),
        (state("True"), state("False"), "failed"),
        (state("False"), state("False", "Other"), "failed"),
        (state("True"), state("Unknown"), "degraded"),
        (state("Unknown"), state("False"), "failed"),
        (state("False"), state("True"), "recovered"),
        (state("Unknown"), state("True"), "recovered"),
    ],
)
def test_transitions(before: Recorded, after: Recorded, kind: str | None) -> None:
    found = transitions(before, after)
    assert [each.kind for each in found] == ([] if kind is None else [kind])
    assert all(
        isinstance(each, Transition) and (each.resource, each.message) == (WEB, "why") for each in found
    )
