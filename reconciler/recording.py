"""What successful steps established, put into the status documents. Pure: old documents in, new ones out.

`with_results` is used for a pass that just ended and for one that was killed before it could publish:
the journal keeps its results, and the next pass starts from documents that know of them.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from reconciler.apply import Details
from reconciler.control.situation import told
from reconciler.desired_model import AnyDesired, DesiredService, DesiredTarget
from reconciler.hashing import Inputs, config_hash
from reconciler.plan import Action, Step
from reconciler.spec.model import Move, Project, SecretTarget, Service, SyncTarget
from reconciler.status.conditions import ConditionType, Reason, remove_condition, set_condition
from reconciler.status.documents import (
    AnyDocument,
    Applied,
    EnvironmentStatus,
    HistoryEntry,
    Hold,
    InputDigests,
    Recorded,
    Release,
    ReleaseKind,
    ServiceStatus,
    SyncCounts,
    SyncStatus,
    TargetStatus,
)
from reconciler.status.kept_releases import kept_releases
from reconciler.status.past import add_history, record_release

if TYPE_CHECKING:
    from reconciler.journal_records import StepRecord


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a successful step established; all that the status files need to know of it."""

    resource: str
    action: str
    at: datetime
    revision: str = ""
    hash: str = ""
    public: dict[str, str] = {}
    keyed: dict[str, str] = {}
    generation: str = ""
    deploy: str = ""
    node: str = ""
    target_path: str = ""
    strategy: str = "mirror"
    rolled_back: str = ""
    """By whom, when and why the target was switched back to a release that it keeps."""
    followers: tuple[str, ...] = ()
    """Services that have to be deployed after it: until they are, what is recorded of them is out of date."""
    details: dict[str, str | int | bool | list[str]] = {}


def step_result(
    step: Step,
    resource: AnyDesired | None,
    details: Details,
    *,
    at: datetime,
    followers: Iterable[str] = (),
) -> StepResult:
    """The record of a step that has just succeeded. No resource: a build, or one that left the spec."""
    base = StepResult(resource=step.resource, action=step.action.value, at=at, details=dict(details))
    if resource is None:
        return base
    base = msgspec.structs.replace(
        base,
        revision=str(resource.revision or ""),
        hash=str(resource.hash or ""),
        public=dict(resource.inputs.public),
        keyed=dict(resource.inputs.keyed),
        generation=generation(resource),
    )
    if isinstance(resource, DesiredService):
        return msgspec.structs.replace(base, deploy=str(resource.service.deploy.__struct_config__.tag))
    if isinstance(resource, DesiredTarget):
        return base
    return msgspec.structs.replace(
        base,
        **place_of(resource),
        rolled_back=told(resource.returned) if resource.returned is not None else "",
        followers=tuple(followers),
    )


def place_of(resource: AnyDesired) -> dict[str, str]:
    """Where a sync target is, as its result says it; empty for others."""
    if isinstance(resource, DesiredService | DesiredTarget):
        return {}
    target = resource.target
    return {"node": target.node, "target_path": target.target_path, "strategy": target.strategy}


def with_begun(recorded: Recorded, untold: "Iterable[StepRecord]", named: Collection[str]) -> Recorded:
    """With the sync targets of which no attempt is recorded, as the first was broken off or failed `untold`.

    Something of it may be there. Those that the spec has, `named` by it, are synced again and recorded by
    that; of others this is the only trace, by which they are removed.
    """
    for step in untold:
        if step.action != Action.SYNC or step.resource in named:
            continue
        status = recorded.syncs.get(step.resource) or _begun(step)
        if status is not None and not status.last_attempted_revision:
            recorded = recorded.put(msgspec.structs.replace(status, last_attempted_revision=step.revision))
    return recorded


def _begun(step: "StepRecord") -> SyncStatus | None:
    node, path = (step.result.get(name) for name in ("node", "target_path"))
    if not (isinstance(node, str) and isinstance(path, str) and node and path):
        return None  # an older journal
    strategy = str(step.result.get("strategy", "mirror"))
    return SyncStatus(id=step.resource, node=node, target_path=path, strategy=strategy)


def generation(resource: AnyDesired) -> str:
    """Digest of what the spec says of a resource, for `observedGeneration`."""
    if isinstance(resource, DesiredService):
        return _generation(resource.service)
    if isinstance(resource, DesiredTarget):
        return _generation(resource.target)
    return _generation((resource.project, resource.target))


def _generation(said: Service | SecretTarget | tuple[Project, SyncTarget]) -> str:
    # msgspec's own text: this runs for each resource in each pass, and canonical JSON takes 20 times as long.
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:16]


def with_results(recorded: Recorded, results: Iterable[StepResult]) -> Recorded:
    """The documents with what successful steps established, in the order in which they succeeded."""
    for result in results:
        if result.action == Action.RELEASE:
            recorded = recorded.put(_released(recorded, result))
        elif result.action in (Action.FORGET, Action.REMOVE):
            recorded = recorded.without([result.resource])
        elif result.action == Action.DEPLOY:
            recorded = recorded.put(_deployed(recorded.services.get(result.resource), result))
        elif result.action == Action.SYNC:
            recorded = recorded.put(_synced(recorded.syncs.get(result.resource), result))
            recorded = recorded.put(*_outdated(recorded, result.followers))
        elif result.action in (Action.PUSH, Action.EXPORT):
            recorded = recorded.put(_pushed(recorded.targets.get(result.resource), result))
        elif result.action == Action.ADOPT:
            recorded = recorded.put(*_adopted(recorded, result))
    return recorded


def _released(recorded: Recorded, result: StepResult) -> EnvironmentStatus:
    """The environment with another release of a unit, which the next steps bring about."""
    said = result.details
    id = f"environments/{said['environment']}"
    status = recorded.environments.get(id) or EnvironmentStatus(id=id)
    unit, decision = str(said["unit"]), said["decision"]
    assert isinstance(decision, int)
    release = Release(
        tag=str(said["tag"]),
        commit=str(said["commit"]),
        spec_revision=str(said["spec"]) or None,
        recorded_at=result.at,
        kind=msgspec.convert(said["kind"], ReleaseKind),
        promoted_from=str(said["promoted_from"]),
        previous=str(said["previous"]),
        triggered_by=str(said["triggered_by"]),
        decision=decision,
    )
    if release.kind == "rollback":
        hold = Hold(
            reason=Reason.ROLLED_BACK,
            resource=f"{unit} at {said['previous_tag']}",
            at=result.at,
            unit=unit,
            decision=decision,
        )
        others = tuple(each for each in status.holds if each.unit != unit)
        status = msgspec.structs.replace(status, holds=(*others, hold))
    return record_release(status, unit, release)


def _deployed(old: ServiceStatus | None, result: StepResult) -> ServiceStatus:
    status = old or ServiceStatus(id=result.resource)
    inventory = inventory_in(result.details)
    return msgspec.structs.replace(
        status, deploy=result.deploy, inventory=inventory, **_established(status, result)
    )


def inventory_in(details: Details) -> dict[str, str]:
    """What a driver needs to find again what it deployed."""
    given = [entry.partition("=") for entry in _names(details, "inventory")]
    return {name: value for name, _, value in given}


def _synced(old: SyncStatus | None, result: StepResult) -> SyncStatus:
    status = old or SyncStatus(id=result.resource, node=result.node, target_path=result.target_path)
    details = result.details
    counts = {
        encoded: details[name]
        for name, encoded in zip(
            SyncCounts.__struct_fields__, SyncCounts.__struct_encode_fields__, strict=True
        )
        if name in details
    }
    warnings, kept = details.get("warnings", []), details.get("edits_kept", 0)
    return msgspec.structs.replace(
        status,
        strategy=result.strategy,
        tree_digest=str(details.get("tree", "")),
        counts=msgspec.convert(counts, SyncCounts),
        edits_kept=kept if isinstance(kept, int) else 0,
        after_done=True,
        current=str(details.get("current", "")),
        releases=kept_releases(details),
        rolled_back=result.rolled_back,
        warnings=tuple(warnings) if isinstance(warnings, list) else (),
        **_established(status, result),
    )


def _outdated(recorded: Recorded, services: Iterable[str]) -> list[ServiceStatus]:
    """The records of services that are due since their files changed; their own deploy, which comes later,
    settles it, in this pass or after a kill in the next."""
    found = [recorded.services[id] for id in services if id in recorded.services]
    return [msgspec.structs.replace(status, config_hash="") for status in found]


def _pushed(old: TargetStatus | None, result: StepResult) -> TargetStatus:
    status = old or TargetStatus(id=result.resource)
    known = status.inputs.keyed
    owned = _owned(status, result.public.get("place"), result.details)
    # What was held back has what was written before.
    held = {name: known[name] for name in _names(result.details, "held") if name in known}
    keyed = {**result.keyed, **held}
    if held:
        key_id = result.hash.split(":")[1]
        whole = str(config_hash(Inputs(result.public, keyed), key_id))
        result = msgspec.structs.replace(result, keyed=keyed, hash=whole)
    return msgspec.structs.replace(status, owned=owned, **_established(status, result))


def _owned(status: TargetStatus, place: str | None, details: Details) -> dict[str, str]:
    """What is ours after a push, finished or not: also names that are not wanted any more, until they go."""
    before = dict(status.owned) if status.inputs.public.get("place") == place else {}
    for name in _names(details, "deleted"):
        before.pop(name, None)
    return {**before, **written(details)}


def _names(details: Details, key: str) -> list[str]:
    names = details.get(key, [])
    assert isinstance(names, list)
    return names


def written(details: Details) -> dict[str, str]:
    """The names that a push wrote, with the times that GitHub gave to them."""
    return dict(zip(_names(details, "names"), _names(details, "updated"), strict=True))


def partly_pushed(status: TargetStatus, resource: DesiredTarget, details: Details) -> TargetStatus:
    """The record after a push that failed: what was written counts, and only the rest is due."""
    place = resource.inputs.public["place"]
    known = status.inputs.keyed if status.inputs.public.get("place") == place else {}
    keyed = {**known, **{name: resource.inputs.keyed[name] for name in written(details)}}
    # Without the list of names this is never the hash that is wanted, so the rest is pushed later.
    public = {name: value for name, value in resource.inputs.public.items() if name != "names"}
    inputs = Inputs(public, keyed)
    assert resource.hash is not None
    return msgspec.structs.replace(
        status,
        owned=_owned(status, place, details),
        inputs=InputDigests.of(inputs),
        config_hash=str(config_hash(inputs, resource.hash.key_id)),
    )


def _established(status: Applied, result: StepResult) -> dict[str, object]:
    entry = HistoryEntry(revision=result.revision, outcome="succeeded", config_hash=result.hash, at=result.at)
    return {
        "last_attempted_revision": result.revision,
        "last_applied_revision": result.revision,
        "config_hash": result.hash,
        "inputs": InputDigests.of(Inputs(result.public, result.keyed)),
        "observed_generation": result.generation,
        "history": add_history(status.history, entry),
        "conditions": remove_condition(status.conditions, ConditionType.SECRETS_VERIFIED),
    }


def _adopted(recorded: Recorded, result: StepResult) -> tuple[AnyDocument, ...]:
    """New fingerprints without a deploy: recorded, and flagged until the next deploy."""
    status: AnyDocument | None = recorded.get(result.resource)
    why = "adopted under another master key without a comparison"
    if "inventory" in result.details:
        status = _deployed(recorded.services.get(result.resource), result)
        why = "what runs there was taken over as it is"
    if not isinstance(status, Applied):
        return ()
    conditions = status.conditions
    if result.keyed:
        conditions = set_condition(
            conditions,
            ConditionType.SECRETS_VERIFIED,
            "False",
            Reason.SECRETS_UNVERIFIED,
            f"{why}; the next deploy settles it",
            now=result.at,
        )
    adopted = msgspec.structs.replace(
        status,
        last_attempted_revision=result.revision,
        last_applied_revision=result.revision,
        config_hash=result.hash,
        inputs=InputDigests.of(Inputs(result.public, result.keyed)),
        conditions=conditions,
    )
    return (adopted,)


def with_moves(recorded: Recorded, moves: Iterable[Move]) -> Recorded:
    """The documents of renamed resources under their new ids, so that a rename is not a delete."""
    for document in list(recorded.documents()):
        moved_id = moved(document.id, moves)
        if moved_id != document.id and recorded.get(moved_id) is None:
            renamed: AnyDocument = msgspec.structs.replace(document, id=moved_id)
            recorded = recorded.without([document.id]).put(renamed)
    for held in [environment for environment in recorded.environments.values() if environment.holds]:
        holds = tuple(
            msgspec.structs.replace(hold, resource=moved(hold.resource, moves)) for hold in held.holds
        )
        recorded = recorded.put(msgspec.structs.replace(held, holds=holds))
    return recorded


KIND_OF_SECTION = {"secret_targets": "targets", "secret_sources": "secrets"}
"""Sections of the spec whose resources have ids that begin otherwise."""


def moved(resource: str, moves: Iterable[Move]) -> str:
    """The id that a resource has after the renames of the spec."""
    for move in moves:
        section, _, old = move.old.partition("/")
        kind = KIND_OF_SECTION.get(section, section)
        parts = resource.split("/")
        position = 2 if kind in ("services", "projects") else 1
        if position == 2 and len(parts) > 1 and parts[1] in move.not_in:
            continue
        if len(parts) > position and parts[0] == kind and parts[position] == old:
            new = move.new.partition("/")[2]
            return "/".join([*parts[:position], new, *parts[position + 1 :]])
    return resource


def with_replayed(recorded: Recorded, replayed: Iterable[StepResult], moves: Sequence[Move]) -> Recorded:
    """What is known at the start of a pass: renames done, and results told that no pass has published yet."""
    results = [
        # What was forgotten went under its old name; whatever has the new one is another thing.
        result
        if result.action in (Action.FORGET, Action.REMOVE)
        else msgspec.structs.replace(
            result,
            resource=moved(result.resource, moves),
            followers=tuple(moved(follower, moves) for follower in result.followers),
        )
        for result in replayed
    ]
    return with_results(with_moves(recorded, moves), results)
