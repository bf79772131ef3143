"""The status of environments after a pass: releases, what became of them, holds and what waits. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from reconciler.control.state import ControlState
from reconciler.desired_model import Desired, DesiredService, DesiredSync
from reconciler.holds import active_in, only_secrets, with_outcomes
from reconciler.observation import Setback
from reconciler.plan import Plan, place_of
from reconciler.release.decide import Decision
from reconciler.release.outcome import FAULTS, Seen, with_outcomes_of_releases, without_lifted
from reconciler.release.told import Told, tell_environments
from reconciler.spec.model import Spec
from reconciler.status.conditions import (
    ConditionStatus,
    ConditionType,
    Reason,
    condition_status,
    set_condition,
)
from reconciler.status.documents import EnvironmentStatus, Recorded, UnitStatus
from reconciler.status.past import record_release

if TYPE_CHECKING:
    from reconciler.apply import Outcome

Pair = tuple[str, str]

PASSING = frozenset({Reason.AWAITING_APPROVAL, Reason.WINDOW_CLOSED, Reason.SOAKING})
"""Reasons for which something new waits, while what runs is in order."""

LEFT_ALONE = frozenset({Reason.MANUAL, Reason.SUSPENDED})
"""Reasons of resources by which no release fails. What an operator has suspended proves none either."""


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """What a pass knows of its environments. `spec`: the head's."""

    spec: Spec
    desired: Desired
    plan: Plan
    outcomes: "Mapping[str, Outcome]"
    is_frozen: Callable[[str], bool]
    decisions: Mapping[Pair, Decision]
    control: ControlState
    left: frozenset[str] = frozenset()
    """Resources that are not in order and to which nothing was to be done."""


def environments_after(
    recorded: Recorded, applied: Recorded, facts: EnvironmentFacts, now: datetime
) -> list[EnvironmentStatus]:
    """Every environment of the spec. `applied` has the documents of resources as they are after the pass."""
    seen = _seen(recorded, applied, facts)
    statuses: dict[str, EnvironmentStatus] = {}
    for name, environment in facts.spec.environments.items():
        id = f"environments/{name}"
        status = recorded.environments.get(id) or EnvironmentStatus(id=id)
        status = without_lifted(status, facts.control)
        mine = {unit: each for (unit, of), each in facts.decisions.items() if of == name}
        for unit, decision in mine.items():
            status = _decided(status, unit, decision, now)
        status = with_outcomes(
            status,
            facts.plan.steps,
            facts.outcomes,
            named=facts.desired.ids,
            is_frozen=facts.is_frozen,
            now=now,
            decision=facts.control.last,
        )
        status, _ = with_outcomes_of_releases(
            status, environment, {unit: seen.get((unit, name), []) for unit in mine}, facts.control, now
        )
        waiting = tuple(each.waiting for each in mine.values() if each.waiting is not None)
        statuses[name] = msgspec.structs.replace(status, waiting=waiting)
    holds = {name: active_in(status, facts.desired.ids, facts.is_frozen) for name, status in statuses.items()}
    told = tell_environments(facts.spec, facts.decisions, holds, facts.control)
    return [_with_condition(status, told.get(name), name, facts, now) for name, status in statuses.items()]


def returned_to(before: Recorded, after: Recorded) -> list[str]:
    """In words, which units a pass has sent back to an earlier release because another one failed."""
    found = []
    for id, status in after.environments.items():
        old = before.environments.get(id)
        for unit, known in status.units.items():
            was = old.units.get(unit) if old is not None else None
            release = known.release
            if (
                release.kind == "rollback"
                and release.outcome == ""
                and (was is None or was.release != release)
            ):
                environment = id.removeprefix("environments/")
                found.append(f"{unit} returns to {release.tag} in {environment}: {release.triggered_by}")
    return found


def _decided(status: EnvironmentStatus, unit: str, decision: Decision, now: datetime) -> EnvironmentStatus:
    """Tags of others need no step of their own; requests that were refused are not looked at again."""
    if decision.next is not None and decision.next.kind == "external":
        status = record_release(status, unit, decision.next.as_release(now))
    known = status.units.get(unit)
    if known is None and decision.refused is not None:
        # Not to be taken later, when nobody thinks of it any more.
        refused = {**status.refused, unit: decision.refused[0]}
        return msgspec.structs.replace(status, refused=refused)
    if known is None:
        return status
    if decision.refused is not None:
        number, message = decision.refused
        known = msgspec.structs.replace(known, decision=number, refused=message)
    elif known.refused and decision.next is not None:
        known = msgspec.structs.replace(known, refused="")
    return msgspec.structs.replace(status, units={**status.units, unit: known})


def _seen(recorded: Recorded, applied: Recorded, facts: EnvironmentFacts) -> dict[Pair, list[Seen]]:
    """The resources by unit and environment, as the release is judged by them."""
    changes = {step.resource: step.changes for step in facts.plan.steps}
    # A secret broke them, and they are only tried again.
    broken = {
        hold.resource
        for status in recorded.environments.values()
        for hold in status.holds
        if not (hold.unit or changes.get(hold.resource))
    }
    found: dict[Pair, list[Seen]] = {}
    for resource in facts.desired.resources:
        place = place_of(resource)
        if place is None or not isinstance(resource, DesiredService | DesiredSync):
            continue
        if resource.setback is not None and resource.setback.reason in LEFT_ALONE:
            if facts.control.suspends(resource.id):
                found.setdefault(place, []).append(Seen(resource.id, ready=True, suspended=True))
            continue
        document = applied.get(resource.id)
        ready = (
            document is not None
            and resource.id not in facts.left
            and condition_status(document.conditions, ConditionType.READY) == "True"
        )
        outcome = facts.outcomes.get(resource.id)
        fault = ""
        if outcome is not None and outcome.state == "failed" and outcome.reason in FAULTS:
            # Where only secrets had changed, the release is not at fault: `holds` has that.
            secrets = only_secrets(changes.get(resource.id, ())) or resource.id in broken
            fault = "" if secrets else outcome.reason
        found.setdefault(place, []).append(Seen(resource.id, ready, fault=fault))
    for place, resource_id in _left_as_they_were(recorded, facts):
        found.setdefault(place, []).append(Seen(resource_id, ready=False))
    return found


def _left_as_they_were(recorded: Recorded, facts: EnvironmentFacts) -> Iterable[tuple[Pair, str]]:
    """What does not run the release, as the spec has an error in it: by the unit whose release it ran last,
    or by every unit of the environment where that is not known."""
    for document in (*recorded.services.values(), *recorded.syncs.values()):
        if document.id in facts.desired.ids or not facts.is_frozen(document.id):
            continue
        environment = document.id.split("/")[1]
        places = [pair for pair in facts.decisions if pair[1] == environment]
        status = recorded.environments.get(f"environments/{environment}")
        known = status.units if status is not None else {}
        ran = document.last_applied_revision
        its_own = [pair for pair in places if ran in _revisions(known.get(pair[0]))]
        for pair in its_own or places:
            yield pair, document.id


def _revisions(known: UnitStatus | None) -> set[str]:
    releases = (known.release, *known.history) if known is not None else ()
    return {f"{each.tag}@sha1:{each.commit}" for each in releases}


def _with_condition(
    status: EnvironmentStatus, told: Told | None, name: str, facts: EnvironmentFacts, now: datetime
) -> EnvironmentStatus:
    ready, reason, message = _readiness(told, list(_troubles(name, facts.decisions)))
    conditions = set_condition(status.conditions, ConditionType.READY, ready, reason, message, now=now)
    return msgspec.structs.replace(status, conditions=conditions)


def _troubles(name: str, decisions: Mapping[Pair, Decision]) -> Iterable[Setback]:
    for (_, environment), decision in decisions.items():
        if environment != name or decision.next is not None:
            continue
        if isinstance(decision.current, Setback):
            yield decision.current
        elif isinstance(decision.current, Exception) and decision.waiting is None:
            yield Setback.of(decision.current)


def _readiness(told: Told | None, troubles: Collection[Setback]) -> tuple[ConditionStatus, str, str]:
    if told is not None and told.reason not in PASSING:
        return "False", told.reason, told.message
    for trouble in troubles:
        return ("Unknown" if trouble.unknown else "False"), trouble.reason, trouble.message
    if told is not None:
        return "True", told.reason, told.message
    return "True", Reason.RECONCILIATION_SUCCEEDED, ""
