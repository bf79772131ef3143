"""What became of a release in a pass: whether it runs or failed, and what follows from that. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from reconciler.control.state import ControlState
from reconciler.holds import is_lifted
from reconciler.release import rules
from reconciler.spec.model import Environment
from reconciler.status.conditions import Reason, whole_second
from reconciler.status.documents import MAX_RELEASES, EnvironmentStatus, Hold, UnitStatus

FAULTS: Final = frozenset(
    {
        Reason.BUILD_FAILED,
        Reason.DEPLOY_FAILED,
        Reason.HEALTH_CHECK_FAILED,
        Reason.STEP_FAILED,
        Reason.TIMEOUT,
        Reason.SYNC_FAILED,
        "CommandFailed",  # the agent's, of a command after a sync
    }
)
"""Reasons of a failed step that speak against the release. A host that is away, a secret source that is down
or a newer revision do not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One resource of a unit in an environment after the pass."""

    resource: str
    ready: bool
    """It is as the release asks; also one that trueup is told to leave alone."""
    suspended: bool = False
    """An operator has it left alone: it need not run with the release, and so does not prove it."""
    fault: str = ""
    """The reason of its step, where that failed and the release may be at fault."""


def with_outcomes_of_releases(
    status: EnvironmentStatus,
    environment: Environment,
    seen: Mapping[str, Iterable[Seen]],
    control: ControlState,
    now: datetime,
) -> tuple[EnvironmentStatus, bool]:
    """The environment with what became of each unit's release, and whether one was returned to.

    `seen`: by unit, its resources there.
    """
    returned = False
    for unit, resources in seen.items():
        known = status.units.get(unit)
        if known is None or rules.proven(known.release):
            continue
        resources = list(resources)
        if known.release.outcome == "succeeded":
            if all(each.ready for each in resources):
                status = _put(status, unit, _ended(known, "succeeded", now, reason=_without(resources)))
            continue
        faults = [each for each in resources if each.fault]
        if faults:
            was = known.release.outcome
            known = _ended(known, "failed", now, reason=f"{faults[0].resource}: {faults[0].fault}")
            status = _put(status, unit, known)
            if was != "failed" and environment.on_failure != "continue":
                status, back = _react(status, environment, unit, known, faults[0], control, now)
                returned = returned or back
        elif all(each.ready for each in resources):
            status = _put(status, unit, _ended(known, "succeeded", now, reason=_without(resources)))
    return status, returned


def _without(resources: Iterable[Seen]) -> str:
    """What was suspended, and so did not run; empty: nothing."""
    names = [each.resource for each in resources if each.suspended]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"without {', '.join(names[:2])}{more}, suspended then" if names else ""


def _react(
    status: EnvironmentStatus,
    environment: Environment,
    unit: str,
    known: UnitStatus,
    fault: Seen,
    control: ControlState,
    now: datetime,
) -> tuple[EnvironmentStatus, bool]:
    """Hold the unit, and return to the release that ran last, if that is asked for.

    A release that was returned to is never returned from: one failure must not walk through all history.
    """
    failed = known.release
    good = rules.last_good(known)
    back = environment.on_failure == "rollback" and failed.kind != "rollback" and good is not None
    hold = Hold(
        reason=Reason.ROLLED_BACK if back else Reason.RELEASE_FAILED,
        resource=f"{fault.resource} with {failed.tag}",
        at=whole_second(now),
        unit=unit,
        decision=control.last,
    )
    others = tuple(each for each in status.holds if each.unit != unit)
    status = msgspec.structs.replace(status, holds=(*others, hold))
    if not back or good is None:
        return status, False
    returned = msgspec.structs.replace(
        good,
        kind="rollback",
        recorded_at=whole_second(now),
        previous=failed.commit,
        triggered_by=f"{fault.resource} failed with {failed.tag} ({fault.fault})",
        decision=known.decision,
        outcome="",
        ended_at=None,
        reason="",
    )
    unit_status = msgspec.structs.replace(
        known, release=returned, history=(failed, *known.history)[:MAX_RELEASES]
    )
    return _put(status, unit, unit_status), True


def without_lifted(status: EnvironmentStatus, control: ControlState) -> EnvironmentStatus:
    """The environment without the holds on units that an operator has lifted since."""
    name = status.id.removeprefix("environments/")
    holds = tuple(hold for hold in status.holds if not is_lifted(hold, name, control))
    return status if holds == status.holds else msgspec.structs.replace(status, holds=holds)


def _ended(known: UnitStatus, outcome: str, now: datetime, *, reason: str = "") -> UnitStatus:
    now_known = known.release
    if now_known.outcome == outcome and (outcome == "failed" or now_known.reason == reason):
        return known  # the first failure is the one that is told
    release = msgspec.structs.replace(
        known.release, outcome=outcome, ended_at=whole_second(now), reason=reason
    )
    return msgspec.structs.replace(known, release=release)


def _put(status: EnvironmentStatus, unit: str, known: UnitStatus) -> EnvironmentStatus:
    return msgspec.structs.replace(status, units={**status.units, unit: known})
