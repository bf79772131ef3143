"""One answer to how a node is and what has drifted, for whoever asks."""

from datetime import UTC, datetime

import pytest

from reconciler.metrics.state import gauges_of_status
from reconciler.node_health import drift_of, health_of
from reconciler.status.conditions import ConditionStatus, Reason, set_condition
from reconciler.status.documents import NodeStatus, Recorded, SyncStatus
from tests.reconciler.control.records import record

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
NODE = NodeStatus(id="nodes/web-1", certificate="PEM")


def sync(status: ConditionStatus, reason: str, message: str = "") -> SyncStatus:
    return SyncStatus(
        id="projects/staging/site/web-1/srv+site",
        node="web-1",
        target_path="/srv/site",
        conditions=set_condition((), "Ready", status, reason, message, now=NOW),
    )


@pytest.mark.parametrize(
    ("status", "reason", "degraded"),
    [
        ("True", Reason.RECONCILIATION_SUCCEEDED, False),
        ("False", Reason.SYNC_FAILED, True),
        ("False", Reason.DRIFT_DETECTED, True),
        ("False", Reason.WINDOW_CLOSED, False),
        ("False", Reason.SUSPENDED, False),
        ("Unknown", Reason.AGENT_UNREACHABLE, False),
    ],
)
def test_a_node_is_degraded_by_what_failed_and_not_by_what_waits(
    status: ConditionStatus, reason: str, degraded: bool
) -> None:
    found = health_of(NODE, [sync(status, reason)], connected=True, revoked=None)
    assert found == ("degraded" if degraded else "healthy")


def test_what_comes_before_what_lies_there() -> None:
    bad = [sync("False", Reason.SYNC_FAILED)]
    assert health_of(NODE, bad, connected=False, revoked=None) == "away"
    assert health_of(NodeStatus(id="nodes/web-1"), bad, connected=False, revoked=None) == "unpaired"
    revoke = record("revoke", 1, resource="nodes/web-1", token_key="x")
    assert health_of(NODE, bad, connected=False, revoked=revoke) == "revoked"


def test_drift_that_is_reported_is_drift_and_counted() -> None:
    drifted = sync("False", Reason.DRIFT_DETECTED, "files differ from what was placed")
    found = drift_of(drifted.conditions)
    assert found is not None
    assert found.message == "files differ from what was placed"
    failed = sync("False", Reason.SYNC_FAILED)
    assert drift_of(failed.conditions) is None
    for status, count in ((drifted, 1), (failed, 0)):
        gauges = gauges_of_status(Recorded().put(status))
        [series] = [each for metric, each in gauges.items() if metric.name == "trueup_resources_drifted"]
        assert sum(series.values()) == count
