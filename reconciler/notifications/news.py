"""What there is to tell people: what failed, recovered, is degraded or waits for an approval. Pure.

It compares the status files with what was told last, not with the status files before. So nothing is told
twice while it stays as it is, and what a killed process could not tell is told by the next one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from reconciler.status.conditions import (
    WAITS,
    Condition,
    ConditionType,
    Reason,
    condition_status,
    find_condition,
)
from reconciler.status.documents import SUMMARY_ID, Applied, Document, Recorded
from reconciler.sync_degraded import by_project, degraded

Kind = Literal["failed", "recovered", "degraded", "awaiting_approval"]
Trouble = Literal["failed", "degraded"]
_State = Literal["well", "failed", "unknown", "ill", "no news"]

NO_NEWS: Final = WAITS | {Reason.PROGRESSING, Reason.REVOKED, Reason.SUPERSEDED}
"""Reasons for which something is not as the spec asks and nothing is wrong with it: somebody wants it so, it
is on its way, or it waits for what is told of itself. What was told before goes on to be what people know."""


class Alarm(msgspec.Struct, frozen=True):
    """What people know of a resource that is not well."""

    worst: Trouble
    """Since it was well."""
    told: Trouble
    """Last."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was told and is not over."""

    alarms: dict[str, Alarm] = {}
    """By resource."""
    awaiting: dict[str, str] = {}
    """By environment and unit, the release whose wait for an approval was told last."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell."""

    kind: Kind
    resource: str
    reason: str
    message: str
    revision: str = ""
    """What was to run there, `v1.0.1@sha1:<commit>`; empty where that says nothing."""
    was: Trouble = "failed"
    """Of what recovered: the worst that it was."""


def news(
    known: Known, now: Recorded, renamed: Callable[[str], str] = lambda id: id
) -> tuple[list[News], Known]:
    """What is to be told of the status files as they are now, and what people know afterwards.

    `renamed`: the id that a resource has by now.
    """
    before = {renamed(id): alarm for id, alarm in known.alarms.items()}
    alarms: dict[str, Alarm] = {}
    found: list[News] = []
    for document in sorted(now.documents(), key=lambda each: each.id):
        alarm = before.get(document.id)
        state, why = _state_of(document)
        if why is None:
            after = alarm
        elif (after := _alarm(alarm, state)) is None:
            if alarm is not None:
                found.append(_news("recovered", document, why, alarm.worst))
        elif alarm is None or alarm.told != after.told:
            found.append(_news(after.told, document, why))
        if after is not None:
            alarms[document.id] = after
    for project, state, message in _projects(now):
        alarm = before.get(project)
        after = alarm if state == "no news" else _alarm(alarm, state)
        if after is not None:
            alarms[project] = after
        if (alarm is None) != (after is None):
            kind: Kind = "recovered" if after is None else "degraded"
            reason = Reason.RECONCILIATION_SUCCEEDED if after is None else Reason.SYNC_DEGRADED
            found.append(News(kind, project, reason, message, was="degraded"))
    waiting, awaiting = _approvals(known, now)
    return [*found, *waiting], Known(alarms=alarms, awaiting=awaiting)


def taken_as_told(recorded: Recorded) -> Known:
    """What people know where somebody else told them, or nobody did: how things are is no news."""
    return news(Known(), recorded)[1]


def _state_of(document: Document) -> tuple[_State, Condition | None]:
    """How it is, and the condition that says so; None: nothing new can be said."""
    ready = find_condition(document.conditions, ConditionType.READY)
    if ready is not None and document.id == SUMMARY_ID and ready.reason == Reason.DEPENDENCY_NOT_READY:
        return "well", ready  # which ones are not is told of themselves
    if ready is None or (ready.status != "True" and ready.reason in NO_NEWS):
        return "no news", None
    if ready.status != "True":
        return ("failed" if ready.status == "False" else "unknown"), ready
    healthy = find_condition(document.conditions, ConditionType.HEALTHY)
    if healthy is None or healthy.status == "True":
        return "well", ready
    return ("ill", healthy) if healthy.status == "False" else ("no news", None)


def _projects(now: Recorded) -> list[tuple[str, _State, str]]:
    """Projects with several targets: each says of itself how it is, and who looks after the whole hears of it
    while some of them work and others do not."""
    found: list[tuple[str, _State, str]] = []
    bad = degraded(now.syncs.values())
    for project, targets in sorted(by_project(now.syncs.values()).items()):
        each = bad.get(project)
        if len(targets) > 1 and each is not None and each.in_order:
            found.append((project, "ill", each.message))
        elif all(condition_status(target.conditions, ConditionType.READY) == "True" for target in targets):
            found.append((project, "well", ""))
        else:
            found.append((project, "no news", ""))
    return found


def _alarm(alarm: Alarm | None, state: _State) -> Alarm | None:
    if state == "well":
        return None
    if state == "unknown" and alarm is not None:
        return alarm  # not to know is neither a recovery nor another failure
    told: Trouble = "failed" if state == "failed" else "degraded"
    worst: Trouble = "failed" if alarm is not None and alarm.worst == "failed" else told
    return Alarm(worst, told)


def _news(kind: Kind, document: Document, why: Condition, was: Trouble = "failed") -> News:
    revision = ""
    if isinstance(document, Applied):
        revision = document.last_applied_revision if kind == "recovered" else document.last_attempted_revision
    return News(kind, document.id, why.reason, why.message, revision, was)


def _approvals(known: Known, now: Recorded) -> tuple[list[News], dict[str, str]]:
    """Each release once in an environment, also where something else keeps it back in between."""
    found: list[News] = []
    awaiting = {
        place: release
        for place, release in known.awaiting.items()
        if place.partition(" ")[0] in now.environments
    }
    for status in sorted(now.environments.values(), key=lambda each: each.id):
        for each in status.waiting:
            place, release = f"{status.id} {each.unit}", each.tag or each.commit
            if each.reason == Reason.AWAITING_APPROVAL and awaiting.get(place) != release:
                awaiting[place] = release
                found.append(News("awaiting_approval", status.id, each.reason, each.message, each.commit))
    return found, awaiting
