"""The condition `Healthy` of a service: what a deploy's wait, or the look of this pass, found. Pure.

It stands apart from `Ready`: what was deployed as asked may be ill, and no step follows from that.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from reconciler.desired_model import Desired, DesiredService
from reconciler.hashing import digest
from reconciler.spec.model import Health, ManualDeploy
from reconciler.status.conditions import (
    ConditionType,
    Reason,
    find_condition,
    remove_condition,
    set_condition,
)
from reconciler.status.documents import Recorded, ServiceStatus

if TYPE_CHECKING:
    from reconciler.apply import Outcome


def checks_due(
    desired: Desired, recorded: Recorded, deploying: Iterable[str]
) -> tuple[tuple[DesiredService, ...], tuple[str, ...]]:
    """The services to look at in a pass, and the ids of those whose check has changed since the last look.

    What is `deploying` is checked by its step. A command is code of the repository: it is run again only
    where it is another one than before, an address is asked in every pass.
    """
    due: list[DesiredService] = []
    changed: list[str] = []
    steps = frozenset(deploying)
    for service in desired.services().values():
        health = service.service.health
        status = recorded.services.get(service.id)
        if health is None or service.id in steps or not _is_there(service, status):
            continue
        known = find_condition(status.conditions, ConditionType.HEALTHY) if status is not None else None
        is_new = known is None or known.observed_generation != digest_of(health)
        if is_new and known is not None:
            changed.append(service.id)
        if not health.command or (is_new and service.setback is None):
            due.append(service)
    return tuple(due), tuple(changed)


def _is_there(service: DesiredService, status: ServiceStatus | None) -> bool:
    """Whether anything was ever deployed that could be well."""
    if isinstance(service.service.deploy, ManualDeploy):
        return True
    return status is not None and bool(status.last_applied_revision)


def notes_of_health(desired: Desired, recorded: Recorded, deploying: Iterable[str]) -> list[str]:
    """What a plan says of checks that changed: no step comes of it."""
    _, changed = checks_due(desired, recorded, deploying)
    return [f"{id}: its `health` changed; it is checked anew, and nothing is deployed" for id in changed]


def with_health(
    status: ServiceStatus,
    health: Health | None,
    outcome: "Outcome | None",
    looked: Mapping[str, str | None],
    now: datetime,
) -> ServiceStatus:
    """A service's status with what is known of its health. `outcome`: of its deploy in this pass.

    `looked`: by id, what was found of those that were looked at; None: healthy.
    """
    if health is None:
        if find_condition(status.conditions, ConditionType.HEALTHY) is None:
            return status
        return msgspec.structs.replace(
            status, conditions=remove_condition(status.conditions, ConditionType.HEALTHY)
        )
    if outcome is not None and outcome.state != "blocked":
        if outcome.state == "succeeded":
            found = ("True", Reason.RECONCILIATION_SUCCEEDED.value, "")
        elif outcome.reason == Reason.HEALTH_CHECK_FAILED:
            found = ("False", outcome.reason, outcome.message)
        else:
            found = ("Unknown", outcome.reason, "not checked: its deploy did not get that far")
    elif status.id in looked:
        reason = looked[status.id]
        if reason is None:
            found = ("True", Reason.RECONCILIATION_SUCCEEDED.value, "")
        else:
            found = ("False", Reason.HEALTH_CHECK_FAILED.value, reason)
    else:
        return status
    return msgspec.structs.replace(
        status,
        conditions=set_condition(
            status.conditions,
            ConditionType.HEALTHY,
            *found,  # type: ignore[arg-type]
            now=now,
            observed_generation=digest_of(health),
        ),
    )


def digest_of(health: Health) -> str:
    """Which check a condition speaks of."""
    return digest(msgspec.to_builtins(health))[:16]
