"""Gauges that follow from what is known: the status files, sources of secrets, agents. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime

from reconciler.metrics.declared import (
    AGENTS,
    DEGRADED,
    DRIFTED,
    HOLDS,
    RELEASE_FAILED,
    RELEASED,
    RESOURCES,
    SECRET_AGE,
    SECRET_STATE,
    UNHEALTHY,
    WAITING,
    Metric,
)
from reconciler.node_health import drift_of
from reconciler.secrets.freshness import Freshness
from reconciler.status.conditions import Conditions, ConditionType, condition_status
from reconciler.status.documents import Document, EnvironmentStatus, Recorded
from reconciler.sync_degraded import by_project, degraded

Series = dict[tuple[str, ...], float]


def gauges_of_status(recorded: Recorded) -> dict[Metric, Series]:
    """What the status files say: how resources are, what is released and what waits."""
    found: dict[Metric, Series] = {RESOURCES: {}, UNHEALTHY: {}, DRIFTED: {}}
    for document in recorded.documents():
        kind, _, name = document.id.partition("/")
        if not name:
            continue  # the summary is no resource
        ready = _status(document, ConditionType.READY)
        _add(found[RESOURCES], (kind, ready or "Unknown"), 1)
        _add(found[UNHEALTHY], (kind,), _status(document, ConditionType.HEALTHY) == "False")
        _add(found[DRIFTED], (kind,), drift_of(document.conditions) is not None)
    bad = degraded(recorded.syncs.values())
    found[DEGRADED] = {
        (project,): float(len(bad[project].failed)) if project in bad else 0.0
        for project in by_project(recorded.syncs.values())
    }
    return found | _of_environments(recorded.environments.values())


def _of_environments(environments: Collection[EnvironmentStatus]) -> dict[Metric, Series]:
    released: Series = {}
    failed: Series = {}
    waiting: Series = {}
    holds: Series = {}
    for status in environments:
        environment = status.id.partition("/")[2]
        holds[(environment,)] = len(status.holds)
        for unit, known in status.units.items():
            released[environment, unit] = known.release.recorded_at.timestamp()
            failed[environment, unit] = known.release.outcome == "failed"
        for each in status.waiting:
            waiting[environment, each.unit, each.reason] = 1
    return {RELEASED: released, RELEASE_FAILED: failed, WAITING: waiting, HOLDS: holds}


def gauges_of_sources(sources: Mapping[str, Freshness], now: datetime) -> dict[Metric, Series]:
    """How old what each secret source serves is."""
    ages: Series = {
        (name,): max(0.0, (now - known.retrieved_at).total_seconds())
        for name, known in sources.items()
        if known.retrieved_at is not None
    }
    states: Series = {(name, known.state.lower()): 1.0 for name, known in sources.items()}
    return {SECRET_AGE: ages, SECRET_STATE: states}


def gauges_of_agents(
    nodes: Collection[str], paired: Collection[str], connected: Collection[str]
) -> dict[Metric, Series]:
    counts = Counter({"connected": 0, "away": 0, "unpaired": 0})
    for node in nodes:
        counts["connected" if node in connected else "away" if node in paired else "unpaired"] += 1
    return {AGENTS: {(state,): float(count) for state, count in counts.items()}}


def _add(series: Series, labels: tuple[str, ...], amount: float) -> None:
    series[labels] = series.get(labels, 0.0) + amount


def _status(document: Document, kind: ConditionType) -> str | None:
    conditions: Conditions = document.conditions
    return condition_status(conditions, kind)
