"""The status of what left the spec and is still there: its removal failed, waits, or is blocked. Pure."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from reconciler.apply import Outcome
from reconciler.plan import Action, Plan
from reconciler.status.conditions import ConditionType, set_condition
from reconciler.status.documents import AnyDocument, Recorded, ServiceStatus, SyncStatus


def leaving_documents(
    recorded: Recorded, plan: Plan, outcomes: Mapping[str, Outcome], named: frozenset[str], now: datetime
) -> list[AnyDocument]:
    """`named` are the ids of the spec: what is told of those is told elsewhere."""
    told: dict[str, tuple[str, str]] = {}
    failed: set[str] = set()
    for step in plan.steps:
        outcome = outcomes.get(step.resource)
        if step.action is Action.REMOVE and outcome is not None and outcome.state != "succeeded":
            told[step.resource] = outcome.reason, outcome.message
            failed |= {step.resource} if outcome.state == "failed" else set()
    told |= {finding.resource: (finding.reason, finding.message) for finding in plan.findings}
    documents: list[AnyDocument] = []
    for id, (reason, message) in told.items():
        status = recorded.services.get(id) or recorded.syncs.get(id)
        if status is not None and id not in named:
            documents.append(_not_gone(status, reason, message, id in failed, now))
    return documents


def _not_gone(
    status: ServiceStatus | SyncStatus, reason: str, message: str, failed: bool, now: datetime
) -> AnyDocument:
    conditions = set_condition(status.conditions, ConditionType.READY, "False", reason, message, now=now)
    # How far a removal got is unknown: should the service come back, it is deployed.
    config_hash = "" if failed else status.config_hash
    return msgspec.structs.replace(status, conditions=conditions, config_hash=config_hash)
