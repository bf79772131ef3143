"""Projects of which a target failed after all its attempts: `SyncDegraded`. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.node_health import failed
from reconciler.status.conditions import ConditionType, Reason, condition_status, find_condition
from reconciler.status.documents import SyncStatus

OTHERWISE: Final = frozenset(
    {Reason.DRIFT_DETECTED, Reason.NOT_IMPLEMENTED, Reason.SPEC_INVALID, Reason.SUPERSEDED}
)
"""Reasons of targets to which no sync has failed."""

MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Degraded:
    """One project. `failed`: by node, why; `others` are in order."""

    failed: tuple[tuple[str, str], ...]
    targets: int
    in_order: int

    @property
    def message(self) -> str:
        named = [f"{node} ({reason})" for node, reason in self.failed[:MAX_NAMED]]
        if len(self.failed) > MAX_NAMED:
            named.append(f"{len(self.failed) - MAX_NAMED} more")
        return f"{len(self.failed)} of {self.targets} targets failed: {', '.join(named)}"


def project_of(id: str) -> str:
    """The id of the project of a target."""
    return "/".join(id.split("/")[:3])


def degraded(syncs: Iterable[SyncStatus]) -> dict[str, Degraded]:
    """By the id of a project, what of it failed."""
    found = {}
    for project, targets in by_project(syncs).items():
        bad = [(each.node, reason) for each in targets if (reason := _failure(each))]
        if bad:
            in_order = sum(_is_ready(each) for each in targets)
            found[project] = Degraded(tuple(sorted(bad)), len(targets), in_order)
    return found


def by_project(syncs: Iterable[SyncStatus]) -> Mapping[str, Sequence[SyncStatus]]:
    found: dict[str, list[SyncStatus]] = defaultdict(list)
    for each in syncs:
        found[project_of(each.id)].append(each)
    return found


def _is_ready(status: SyncStatus) -> bool:
    return condition_status(status.conditions, ConditionType.READY) == "True"


def _failure(status: SyncStatus) -> str:
    """Why the last sync to it failed; empty: it did not."""
    ready = find_condition(status.conditions, ConditionType.READY)
    if ready is None or not failed(status.conditions) or ready.reason in OTHERWISE:
        return ""
    return ready.reason
