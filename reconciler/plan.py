"""The plan: a graph of steps, each with its reason and the hash it will establish. Pure.

The same inputs give the same plan, and the plan after a pass that applied it is empty.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.desired import Desired, DesiredResource, DesiredService, DesiredSync, DesiredTarget
from reconciler.gates import Gates, release_id
from reconciler.hashing import SECRET, ConfigHash, changed_inputs
from reconciler.observation import Absent, Observation, Present, Setback, Unknown
from reconciler.prune import Leaving, Removable, judge
from reconciler.returned import is_returned, reason_of_return
from reconciler.status.conditions import MEANT, Reason


class Action(StrEnum):
    RELEASE = "release"
    """Another release of a unit in an environment: a tag is made, or an earlier one returned to."""
    BUILD = "build"
    PUSH = "push"
    """Write secrets into another system."""
    EXPORT = "export"
    """Have another system write secrets that it alone can read."""
    DEPLOY = "deploy"
    SYNC = "sync"
    ADOPT = "adopt"
    """Record new fingerprints under a new master key, or what somebody else deployed; nothing that runs is
    touched."""
    REMOVE = "remove"
    """The spec no longer names it: its driver takes away what it put there."""
    FORGET = "forget"
    """The spec no longer names it: its status file goes, what is on the host stays."""


FORCED = "forced"
"""The reason of a step that somebody asked for although nothing changed."""

ADOPTED = "taken over as it is"
"""The reason of a step that marks what somebody else deployed as what the spec says."""

DRIFT = ("drift",)
"""The changes of a step that only heals."""

STAGE = {
    Action.RELEASE: 0,
    Action.BUILD: 1,
    Action.PUSH: 2,
    Action.EXPORT: 2,
    Action.SYNC: 3,
    Action.DEPLOY: 4,
    Action.ADOPT: 5,
    Action.REMOVE: 6,
    Action.FORGET: 7,
}
"""Breaks ties between steps that do not depend on each other."""

UNREACHABLE = frozenset({Reason.AGENT_UNREACHABLE, Reason.AWAITING_PAIRING, Reason.REVOKED})
"""Reasons that say that a host is away, and nothing else."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one resource. `changes` names the inputs that differ from what is recorded."""

    resource: str
    action: Action
    reason: str
    hash: str = ""
    changes: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    """Resources of this plan that come first: their step must have succeeded, their finding blocks."""
    may_be_unreachable: bool = False
    """A host that goes away before it was done holds up nothing that depends on it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A resource for which nothing is planned although it is not simply in order."""

    resource: str
    reason: str
    message: str
    unknown: bool = False
    """We could not look or could not compute: a plan that holds one is never called clean."""
    blocks: bool = True
    """Whether what depends on this resource has to wait."""


@dataclass(frozen=True, slots=True)
class Plan:
    spec_revision: str
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]

    @property
    def has_unknown(self) -> bool:
        return any(finding.unknown for finding in self.findings)

    def finding(self, resource: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.resource == resource), None)


def make_plan(
    desired: Desired,
    observed: Mapping[str, Observation],
    *,
    recorded: Collection[str],
    frozen: Collection[str] = (),
    forced: Collection[str] = (),
    adopted: Collection[str] = (),
    releases: Iterable[Step] = (),
    gates: Gates | None = None,
    removable: Removable | None = None,
    force_prune: bool = False,
    under_way: Mapping[str, "Finding"] | None = None,
) -> Plan:
    """Compare what is wanted with what was found, of which `observed` says something for every resource.

    `recorded` are the ids of all status files but the summary. Those that the spec no longer names are
    removed, as far as they are `removable`, or forgotten, except the `frozen` ones, whose spec is wrong at
    the moment. The `forced` ones get a step even if nothing changed, the `adopted` ones of those that are due
    are marked and not deployed. `releases` are the steps that give units another release: what is deployed of
    those units waits for them. `gates` say what may not happen now. Nothing is done to what is `under_way`;
    `reconciler.around` has what waits for that.
    """
    gates = gates or Gates()
    under_way = under_way or {}
    steps: list[Step] = [step for step in releases if step.resource not in under_way]
    findings: list[Finding] = [
        Finding(id, reason, why, blocks=reason not in MEANT) for id, (reason, why) in gates.told.items()
    ]
    findings += under_way.values()
    released = {step.resource for step in steps} | under_way.keys()
    for resource in desired.resources:
        if resource.id in under_way:
            continue
        found = observed[resource.id]
        outcome = _compare(resource, found)
        if resource.id in forced and _can_be_forced(resource, found) and not _acts(outcome):
            outcome = _step(resource, FORCED, ())
        if isinstance(resource, DesiredService) and _can_be_forced(resource, found) and not _acts(outcome):
            outcome = _following(resource, steps) or outcome
        if resource.id in adopted and isinstance(outcome, Step) and outcome.action is Action.DEPLOY:
            outcome = replace(outcome, action=Action.ADOPT, reason=ADOPTED, changes=())
        if isinstance(outcome, Step):
            outcome = _gated(gates, resource, found, outcome)
        if isinstance(outcome, Step) and (release := release_id_of(resource)) in released:
            outcome = replace(outcome, depends_on=(release, *outcome.depends_on))
        if isinstance(outcome, Step):
            steps.append(outcome)
        elif outcome is not None:
            findings.append(outcome)
    steps += [build for build in _builds(desired, steps) if build.resource not in under_way]
    steps = _with_dependencies(desired, steps, findings)
    pruned = judge(
        desired, recorded, removable or Removable(), frozen={*frozen, *under_way}, force=force_prune
    )
    if pruned.refused:
        findings.append(Finding("summary", Reason.PRUNE_REFUSED, pruned.refused))
    for leaving in pruned.leaving:
        closed = gates.closed.get(leaving.resource.split("/")[1]) if leaving.removed else None
        if closed is None:
            steps.append(_leave(leaving, steps, under_way))
        else:
            message = f"{closed}; waits: {leaving.reason}"
            findings.append(Finding(leaving.resource, Reason.WINDOW_CLOSED, message, blocks=False))
    if gates.frozen:
        findings += [
            Finding(step.resource, Reason.FROZEN, f"{gates.frozen}; waits: {step.reason}", blocks=False)
            for step in steps
        ]
        steps = []
    return Plan(desired.spec_revision, _ordered(steps), tuple(findings))


def _leave(leaving: Leaving, steps: Iterable[Step], under_way: Collection[str]) -> Step:
    """Nothing is taken away where what is there to stay could not be brought about."""
    if not leaving.removed:
        return Step(leaving.resource, Action.FORGET, leaving.reason)
    where = _belongs_to(leaving.resource)
    first = (step.resource for step in steps if step.action in (Action.SYNC, Action.DEPLOY))
    running = (id for id in under_way if id.partition("/")[0] in ("services", "projects"))
    waits = (id for id in (*first, *running) if _belongs_to(id) == where)
    return Step(leaving.resource, Action.REMOVE, leaving.reason, depends_on=(*waits, *leaving.after))


def _belongs_to(resource: str) -> str:
    """The environment of a service or sync target; the node of a target that is of none."""
    _, scope, *rest = resource.split("/")
    return f"nodes/{rest[1]}" if scope == "branch" and len(rest) > 1 else scope


def _gated(gates: Gates, resource: DesiredResource, found: Observation, step: Step) -> Step | Finding:
    """The step, unless its time has not come."""
    if step.action is Action.ADOPT:
        return step
    place = place_of(resource)
    closed = gates.closed.get(place[1]) if place is not None and place not in gates.exempt else None
    # Drift is healed at any time; to do again what is done already is a deploy like any other.
    heals = step.changes == DRIFT and isinstance(found, Present) and found.hash == step.hash
    if closed is None or heals or is_returned(resource):
        return step
    return Finding(resource.id, Reason.WINDOW_CLOSED, f"{closed}; waits: {step.reason}", blocks=False)


def place_of(resource: DesiredResource) -> tuple[str, str] | None:
    """The unit and the environment whose release a resource runs; None where it runs none."""
    if isinstance(resource, DesiredService):
        return resource.service.unit, resource.service.environment
    if isinstance(resource, DesiredSync):
        unit, environment = resource.project.unit, resource.project.environment
        return (unit, environment) if unit is not None and environment is not None else None
    return None


def release_id_of(resource: DesiredResource) -> str:
    """The id of the step that gives a resource's unit another release; empty where there can be none."""
    place = place_of(resource)
    return release_id(*place) if place is not None else ""


def _compare(resource: DesiredResource, observation: Observation) -> Step | Finding | None:
    if resource.setback is not None:
        return _finding(resource, resource.setback)
    assert resource.hash is not None  # a resource without a setback has its hash
    match observation:
        case Unknown(reason, message):
            blocks = reason not in UNREACHABLE or not resource.may_be_unreachable
            return Finding(resource.id, reason, message, unknown=True, blocks=blocks)
        case Absent(why):
            return _step(resource, why, ())
        case Present() as present:
            return _compare_present(resource, resource.hash, present)


def _compare_present(resource: DesiredResource, wanted: ConfigHash, found: Present) -> Step | Finding | None:
    recorded = ConfigHash.parse(found.hash)
    public = changed_inputs(found.inputs.public, resource.inputs.public)
    if not public and (recorded is None or recorded.key_id != wanted.key_id):
        # Another master key, or another version of the hash: the fingerprints cannot be compared, and
        # a key change alone must not restart the world.
        return Step(resource.id, Action.ADOPT, "fingerprints are of another master key", str(wanted))
    keyed = tuple(
        name
        for name in changed_inputs(found.inputs.keyed, resource.inputs.keyed)
        # A stale or fallback value alone never causes a step, nor does a key that a fallback does not have.
        if name not in resource.soft_inputs and not (resource.degraded and name not in resource.inputs.keyed)
    )
    if public or keyed:
        changes = (*public, *(f"{SECRET}{name}" for name in keyed))
        told = (f"{SECRET}{name}" + _key(resource, name) for name in keyed)
        reason = reason_of_return(resource, found) or "changed: " + ", ".join((*public, *told))
        if isinstance(resource, DesiredTarget) and resource.origin is None and found.drift:
            reason += f"; {found.drift}"  # among it what is going to be deleted
        return _step(resource, reason, changes)
    if found.drift:
        if resource.heals_drift:
            return _step(resource, f"drift: {found.drift}", DRIFT)
        return Finding(resource.id, Reason.DRIFT_DETECTED, found.drift, blocks=False)
    return None


def _key(resource: DesiredResource, name: str) -> str:
    """Where to look for a secret that has another name in its source."""
    return f" (key {resource.keys[name]})" if name in resource.keys else ""


def _step(resource: DesiredResource, reason: str, changes: tuple[str, ...]) -> Step:
    action = Action.DEPLOY
    if isinstance(resource, DesiredSync):
        action = Action.SYNC
    elif isinstance(resource, DesiredTarget):
        action = Action.PUSH if resource.origin is None else Action.EXPORT
    return Step(
        resource.id,
        action,
        reason,
        str(resource.hash),
        changes,
        resource.depends_on,
        resource.may_be_unreachable,
    )


def _acts(outcome: Step | Finding | None) -> bool:
    return isinstance(outcome, Step) and outcome.action is not Action.ADOPT


def _can_be_forced(resource: DesiredResource, found: Observation) -> bool:
    return resource.setback is None and isinstance(found, Present)


def _finding(resource: DesiredResource, setback: Setback) -> Finding:
    return Finding(resource.id, setback.reason, setback.message, setback.unknown, setback.blocks)


def _following(service: DesiredService, steps: Iterable[Step]) -> Step | None:
    """A deploy at an equal hash, as the files that it works with are about to be put in place again."""
    synced = [step for step in steps if step.action is Action.SYNC and step.resource in service.follows]
    if not synced:
        return None
    where = ", ".join(sorted({step.resource.split("/")[3] for step in synced}))
    if all(step.changes == DRIFT for step in synced):
        return _step(service, f"drift: its project is put right on {where}", DRIFT)
    return _step(service, f"its project is synced to {where}", ())


def _builds(desired: Desired, steps: Iterable[Step]) -> list[Step]:
    """One build for each project that is about to be synced somewhere and has one."""
    wanted: dict[str, list[str]] = {}
    for step in steps:
        build = desired.builds.get(step.resource)
        if step.action is Action.SYNC and build is not None:
            wanted.setdefault(build, []).append(step.resource)
    return [
        Step(build, Action.BUILD, f"needed by {len(targets)} target{'s' if len(targets) > 1 else ''}")
        for build, targets in sorted(wanted.items())
    ]


def _with_dependencies(desired: Desired, steps: list[Step], findings: Iterable[Finding]) -> list[Step]:
    """The steps with what each has to wait for in this plan, also through resources that are in order."""
    depends_on = {resource.id: resource.depends_on for resource in desired.resources}
    waited_for = {step.resource for step in steps if step.action is not Action.ADOPT}
    waited_for |= {finding.resource for finding in findings if finding.blocks}

    def reached(step: Step) -> tuple[str, ...]:
        found: list[str] = []
        seen = {step.resource}
        waiting = list(step.depends_on)
        while waiting:
            dependency = waiting.pop(0)
            if dependency in waited_for and dependency not in found:
                found.append(dependency)
            elif dependency not in seen:
                seen.add(dependency)
                waiting += depends_on.get(dependency, ())
        return tuple(found)

    return [replace(step, depends_on=reached(step)) for step in steps]


def _ordered(steps: Iterable[Step]) -> tuple[Step, ...]:
    """By dependency, ties broken by stage and then by name, so that equal inputs print equal plans."""
    remaining = {step.resource: step for step in steps}
    ordered: list[Step] = []
    while remaining:
        ready = [
            step
            for step in remaining.values()
            if not any(dependency in remaining for dependency in step.depends_on)
        ]
        # The loader refuses cycles; should one get here all the same, apply blocks it instead of hanging.
        for step in sorted(ready or remaining.values(), key=lambda s: (STAGE[s.action], s.resource)):
            ordered.append(step)
            del remaining[step.resource]
    return tuple(ordered)


def to_document(plan: Plan) -> dict[str, object]:
    """The plan as one JSON document, the same content as the table."""
    return {
        "version": 1,
        "specRevision": plan.spec_revision,
        "steps": [
            {
                "resource": step.resource,
                "action": step.action.value,
                "reason": step.reason,
                "changes": list(step.changes),
                "hash": step.hash,
                "dependsOn": list(step.depends_on),
            }
            for step in plan.steps
        ],
        "findings": [
            {
                "resource": finding.resource,
                "reason": finding.reason,
                "message": finding.message,
                "unknown": finding.unknown,
            }
            for finding in plan.findings
        ],
    }
