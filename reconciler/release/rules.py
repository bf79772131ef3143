"""The rules that a release has to pass before an environment takes it. Pure.

A rule that speaks of the release itself refuses it: it would be as wrong tomorrow. A rule that speaks of
the moment makes it wait. Operators' commands ask the same functions before they record anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.control.records import Record
from reconciler.observation import Setback
from reconciler.release.facts import Candidate, Common, UnitFacts
from reconciler.release.versions import parse_version
from reconciler.release.windows import closed_text
from reconciler.spec.model import Environment
from reconciler.status.conditions import Reason
from reconciler.status.documents import Release, UnitStatus


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a release is never taken as it is."""

    message: str
    reason: str = Reason.RELEASE_REFUSED


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a release is not taken now."""

    reason: str
    message: str


def refusal(facts: UnitFacts, candidate: Candidate) -> Refusal | None:
    """What speaks against the release itself."""
    current = facts.recorded.release if facts.recorded is not None else None
    where = f"{facts.unit.name} in {facts.environment.name}"
    if candidate.tag and not isinstance(facts.tags, Setback):
        found = next((tag for tag in facts.tags if tag.name == candidate.tag), None)
        if found is None or found.commit != candidate.commit:
            return Refusal(f"the tag {candidate.tag} is gone or stands for another commit")
        if parse_version(candidate.tag, facts.unit) is None:
            return Refusal(f"{candidate.tag} is no release tag of {facts.unit.name}")
    if candidate.kind == "promotion" and (refused := _failing_in_source(facts, candidate)) is not None:
        return refused
    if current is None:
        return None
    same_spec = facts.environment.spec_from == "head" or candidate.spec_revision == current.spec_revision
    if candidate.commit == current.commit and same_spec and candidate.kind in ("promotion", "hotfix"):
        return runs_already(facts, current)
    if candidate.kind == "hotfix":
        if not facts.lineage.contains(current.commit, candidate.commit):
            return Refusal(
                f"{candidate.told} does not descend from {current.tag}, which {where} runs; make the "
                f"hotfix on a branch that `trueup hotfix {facts.environment.name}` gives you, or promote it"
            )
        return None
    if facts.lineage.is_older(candidate.commit, current.commit):
        return Refusal(
            f"{candidate.told} is behind {current.tag}, which {where} runs; go back with "
            f"`trueup rollback {facts.environment.name}`"
        )
    drops = candidate.request is not None and candidate.request.drop_hotfix
    if facts.recorded is not None and runs_hotfix(facts.recorded) and not drops:
        return _lost_hotfix(facts, candidate, current)
    return None


def runs_already(facts: UnitFacts, current: Release) -> Refusal:
    where = f"{facts.unit.name} in {facts.environment.name}"
    return Refusal(f"{where} runs {current.commit[:12]} already, as {current.tag}")


def runs_hotfix(status: UnitStatus) -> bool:
    """Whether the current release is a hotfix, or one that was returned to."""
    now = status.release
    return now.kind == "hotfix" or (
        now.kind == "rollback"
        and any(each.kind == "hotfix" and each.tag == now.tag for each in status.history)
    )


def _lost_hotfix(facts: UnitFacts, candidate: Candidate, hotfix: Release) -> Refusal | None:
    if facts.lineage.has_patches(hotfix.commit, candidate.commit):
        return None
    return Refusal(
        f"{candidate.told} lacks commits of the hotfix {hotfix.tag} that {facts.unit.name} runs in "
        f"{facts.environment.name}; merge them first, or say --drop-hotfix"
    )


def _failing_in_source(facts: UnitFacts, candidate: Candidate) -> Refusal | None:
    """A release that once ran well says nothing of a spec that came later, and that fails there."""
    source = facts.source.release if facts.source is not None else None
    is_running = source is not None and source.tag == candidate.promoted_from
    if not facts.source_fault or not is_running or candidate.spec_revision != facts.source_spec:
        return None
    return Refusal(
        f"{candidate.told} of {facts.unit.name} is not in order in {facts.environment.release.promote_from} "
        f"with the spec as it is now ({facts.source_fault}); mend that first, or promote an earlier release"
    )


def unproven(facts: UnitFacts, tag: str, commit: str) -> Refusal | None:
    """Whether a release has not run successfully in the environment that it is promoted from."""
    source = facts.environment.release.promote_from
    known = find_release(facts.source, tag, commit)
    if known is not None and proven(known):
        return None
    if known is None:
        why = f"{source} has no record of running it"
    elif known.outcome == "succeeded":
        why = f"it ran in {source} {known.reason}"
    elif known.outcome == "failed":
        why = f"it failed in {source}: {known.reason or 'see its services'}"
    else:
        why = f"not everything of {facts.unit.name} runs with it in {source} yet"
    return Refusal(f"{tag} of {facts.unit.name} cannot be promoted to {facts.environment.name}: {why}")


def proven(release: Release) -> bool:
    """Whether everything of the unit ran with it: nothing was suspended meanwhile."""
    return release.outcome == "succeeded" and not release.reason


def find_release(status: UnitStatus | None, tag: str, commit: str = "") -> Release | None:
    """The newest record of a release with this tag."""
    if status is None:
        return None
    found = [each for each in (status.release, *status.history) if each.tag == tag]
    found = [each for each in found if not commit or each.commit == commit]
    return next(filter(proven, found), found[0] if found else None)


def stood(status: UnitStatus) -> Iterator[Release]:
    """The releases, newest first, without those that were left by returning to an earlier one."""
    returned_to = ""
    for release in (status.release, *status.history):
        if returned_to and release.tag != returned_to:
            continue
        returned_to = release.tag if release.kind == "rollback" else ""
        yield release


def last_good(status: UnitStatus) -> Release | None:
    """The release to return to: the newest before the current one that ran, was not left for being bad,
    and is another."""
    now = status.release
    return next(
        (
            each
            for each in stood(status)
            if each.outcome == "succeeded"
            and (each.commit, each.spec_revision) != (now.commit, now.spec_revision)
        ),
        None,
    )


def held(facts: UnitFacts, common: Common, request: Record | None) -> Wait | None:
    """The hold that keeps a unit at its release. A request ends those that were there before it."""
    environment, unit = facts.environment.name, facts.unit.name
    asked = request.number if request is not None else 0
    by = common.control.hold_of(environment, unit)
    if by is not None and by.number > asked:
        why = f": {by.reason}" if by.reason else ""
        return Wait(Reason.HOLD_ACTIVE, f"{by.by} holds {by.unit or environment}{why}")
    lifted = max(asked, common.control.lifted_at(environment, unit))
    for hold in common.holds.get(environment, ()):
        if hold.unit in ("", unit) and lifted <= hold.decision:
            what = "was returned from" if hold.reason == Reason.ROLLED_BACK else "failed"
            return Wait(Reason.HOLD_ACTIVE, f"held since {hold.resource} {what}")
    return None


def window(environment: Environment, common: Common) -> Wait | None:
    """The closed windows of an environment, unless somebody has opened them."""
    closed = closed_text(environment.windows, common.now)
    if closed is None or overridden(environment.name, common):
        return None
    return Wait(Reason.WINDOW_CLOSED, f"the windows of {environment.name} are {closed}")


def overridden(environment: str, common: Common) -> bool:
    record = common.control.overrides.get(environment)
    return record is not None and record.until is not None and common.now < record.until


def approval(facts: UnitFacts, common: Common, candidate: Candidate) -> Record | Wait | None:
    """The approval that lets a release through, or that it is missing; None: none is asked for."""
    if facts.environment.release.approval != "manual":
        return None
    environment, unit = facts.environment.name, facts.unit.name
    given = common.control.approval_of(environment, unit, candidate.commit, facts.seen)
    if given is not None:
        return given
    return Wait(
        Reason.AWAITING_APPROVAL,
        f"{candidate.told} of {unit} waits for `trueup approve {environment}`",
    )


def soaking(facts: UnitFacts, release: Release, soak: float, now: datetime) -> Wait | None:
    """The time that a release still has to run in the environment that it is promoted from."""
    assert release.ended_at is not None  # it has succeeded
    over = release.ended_at + timedelta(seconds=soak)
    if now >= over:
        return None
    where = f"{release.tag} of {facts.unit.name} soaks in {facts.environment.release.promote_from}"
    return Wait(Reason.SOAKING, f"{where} until {over:%Y-%m-%d %H:%M:%S} UTC")
