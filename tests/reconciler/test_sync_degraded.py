"""Projects of which some targets failed: what is counted, told and measured of it."""

from datetime import UTC, datetime

import pytest

from reconciler.metrics.declared import DEGRADED
from reconciler.metrics.state import gauges_of_status
from reconciler.notifications.news import Known, news
from reconciler.status.conditions import ConditionStatus, ConditionType, Reason, set_condition
from reconciler.status.documents import Recorded, SyncStatus
from reconciler.sync_degraded import degraded

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SITE = "projects/production/site"


def target(node: str, reason: str = "", *, unknown: bool = False) -> SyncStatus:
    status: ConditionStatus = "Unknown" if unknown else "False" if reason else "True"
    conditions = set_condition(
        (), ConditionType.READY, status, reason or Reason.RECONCILIATION_SUCCEEDED, now=NOW
    )
    return SyncStatus(id=f"{SITE}/{node}/srv+site", node=node, target_path="/srv/site", conditions=conditions)


def test_who_failed_is_named_and_counted() -> None:
    syncs = [target("a"), target("b", "DiskFull"), target("c", "SyncFailed"), target("d")]
    found = degraded(syncs)[SITE]
    assert found.message == "2 of 4 targets failed: b (DiskFull), c (SyncFailed)"
    assert gauges_of_status(Recorded().put(*syncs))[DEGRADED] == {(SITE,): 2.0}
    many = degraded([target(f"n{number}", "DiskFull") for number in range(7)])[SITE]
    assert many.message.startswith("7 of 7 targets failed: n0 (DiskFull)")
    assert many.message.endswith("n4 (DiskFull), 2 more")


@pytest.mark.parametrize("reason", ["Suspended", "AwaitingPairing", "DependencyNotReady", "DriftDetected"])
def test_what_waits_or_is_only_reported_has_not_failed(reason: str) -> None:
    syncs = [target("a"), target("b", reason), target("c", "AgentUnreachable", unknown=True)]
    assert degraded(syncs) == {}
    assert gauges_of_status(Recorded().put(*syncs))[DEGRADED] == {(SITE,): 0.0}


def test_it_is_told_once_and_its_end_too() -> None:
    known = Known()

    def told(*syncs: SyncStatus) -> list[tuple[str, str]]:
        nonlocal known
        found, known = news(known, Recorded().put(*syncs))
        return [(each.kind, each.reason) for each in found if each.resource == SITE]

    assert told(target("a"), target("b")) == []
    assert told(target("a"), target("b", "DiskFull")) == [("degraded", "SyncDegraded")]
    assert told(target("a"), target("b", "DiskFull")) == []
    # That the rest fails as well, or that nobody knows, is neither a recovery nor news of the project.
    assert told(target("a", "DiskFull"), target("b", "DiskFull")) == []
    assert told(target("a"), target("b", "AgentUnreachable", unknown=True)) == []
    assert told(target("a"), target("b")) == [("recovered", "ReconciliationSucceeded")]
    # Of a project with one target, the target tells it all.
    known = Known()
    assert told(target("a", "DiskFull")) == []
