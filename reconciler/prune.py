"""What becomes of resources that the spec no longer names: removed, forgotten, or left alone. Pure.

Taking something away cannot be undone, and a spec loses its parts by accident too: a merge, a wrong
`include`, an emptied file. So nothing goes that something else claims, and never all at once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from reconciler.desired_model import Desired

FORCE = "--force-prune"


@dataclass(frozen=True, slots=True)
class Removable:
    """What drivers can take away. Places are their own words, and compared only."""

    places: Mapping[str, str] = field(default_factory=dict)
    """By id of a recorded service whose driver can remove it: what that would take away."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """By id of a service of the spec: where it is, or is going to be."""
    depends_on: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By id of a recorded service: what it depended on when it was deployed last."""
    targets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By id of a recorded sync target whose agent can be asked: its node and its path there."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """One resource that goes: removed by its driver, or only forgotten."""

    resource: str
    removed: bool
    reason: str
    after: tuple[str, ...] = ()
    """Others that are removed before it, as they depended on it."""


@dataclass(frozen=True, slots=True)
class Pruned:
    leaving: tuple[Leaving, ...] = ()
    refused: str = ""
    """Why nothing goes at all; empty: it is not so."""


def judge(
    desired: Desired,
    recorded: Collection[str],
    removable: Removable,
    *,
    frozen: Collection[str] = (),
    force: bool = False,
) -> Pruned:
    """What becomes of the `recorded` ids that the spec does not name.

    Nothing happens to the `frozen` ones, whose spec is wrong at the moment. `force`:
    somebody has looked, and wants it all the same.
    """
    gone = set(recorded) - desired.ids - set(frozen)
    claims = _claims(desired, removable, frozen)
    places = {id: place for id, place in removable.places.items() if id in gone}
    owners = {id: claims.get(place) for id, place in places.items()}
    owners |= _owners_of_targets(desired, removable, gone)
    removed = {id for id, owner in owners.items() if owner is None}
    if refused := _why_refused(desired, recorded, gone, removed, force=force):
        return Pruned(refused=refused)
    after = _dependents(removed, removable)
    leaving = [
        Leaving(
            id,
            id in removed,
            _why(id, id in removed, owners.get(id)),
            after.get(id, ()),
        )
        for id in sorted(gone)
    ]
    return Pruned(tuple(leaving))


def _claims(desired: Desired, removable: Removable, frozen: Collection[str]) -> dict[str, str]:
    """By place, who stays there."""
    known = {place: id for id, place in sorted(removable.places.items()) if id in {*frozen, *desired.ids}}
    return known | {place: id for id, place in sorted(removable.claims.items())}


def _owners_of_targets(
    desired: Desired, removable: Removable, gone: Collection[str]
) -> dict[str, str | None]:
    """By id of a target that leaves and whose agent can be asked, who stays at its path, below or above."""
    staying = {id: place for id, place in removable.targets.items() if id not in gone}
    staying |= {id: (sync.target.node, sync.target.target_path) for id, sync in desired.syncs().items()}
    by_node: dict[str, list[tuple[str, str]]] = {}
    for id, (node, path) in sorted(staying.items()):
        by_node.setdefault(node, []).append((id, path))
    return {
        id: next((other for other, there in by_node.get(node, ()) if _overlap(path, there)), None)
        for id, (node, path) in removable.targets.items()
        if id in gone
    }


def _overlap(one: str, other: str) -> bool:
    shorter, longer = sorted((PurePosixPath(one).parts, PurePosixPath(other).parts), key=len)
    return longer[: len(shorter)] == shorter


def _why_refused(
    desired: Desired,
    recorded: Collection[str],
    gone: Collection[str],
    removed: Collection[str],
    *,
    force: bool,
) -> str:
    restore = "restore what was removed by mistake"
    applied = [id for id in recorded if id.startswith(("services/", "projects/"))]
    if removed and len(applied) > 1 and all(id in gone for id in applied):
        return (
            f"the spec names none of the {len(applied)} recorded services and targets any more, and they are "
            f"never removed all at once; {restore}, or take them out a part at a time"
        )
    if force:
        return ""
    if len(gone) > max(1, desired.max_prune * len(recorded)):
        return (
            f"the spec no longer names {len(gone)} of {len(recorded)} recorded resources, more than "
            f"limits.max_prune allows; make one pass with {FORCE}, raise it for this change, or {restore}"
        )
    leave = [id for id in applied if id in gone]
    if removed and len(leave) > max(1, desired.max_prune * len(applied)):
        # Where everything is replaced at once, the new ones are recorded by the next pass.
        return (
            f"the spec no longer names {len(leave)} of {len(applied)} recorded services and targets, more "
            f"than limits.max_prune allows; make one pass with {FORCE}, raise it for this change, "
            f"or {restore}"
        )
    for environment in sorted({_scope(id) for id in removed}):
        services = [id for id in recorded if id.startswith(f"services/{environment}/")]
        if len(services) > 1 and all(id in gone for id in services):
            return (
                f"the spec no longer names any of the {len(services)} services of {environment}; "
                f"make one pass with {FORCE}, or {restore}"
            )
    return ""


def _dependents(removed: Collection[str], removable: Removable) -> dict[str, tuple[str, ...]]:
    """By id, the dependents that go before it. Records of different times may make a circle, which is cut."""
    dependents: dict[str, list[str]] = {id: [] for id in removed}
    for id in sorted(removed):
        for dependency in removable.depends_on.get(id, ()):
            if dependency in dependents and dependency != id:
                dependents[dependency].append(id)
    before: dict[str, tuple[str, ...]] = {}
    while len(before) < len(dependents):
        left = [id for id in sorted(dependents) if id not in before]
        ready = [id for id in left if all(each in before for each in dependents[id])]
        for id in ready or left[:1]:
            before[id] = tuple(each for each in dependents[id] if each in before)
    return before


STAYS = {
    "projects": "its files stay on the host",
    "services": "what it deployed stays",
    "targets": "the secrets stay there",
}


def _why(resource: str, removed: bool, claimant: str | None) -> str:
    said = "no longer in the spec"
    stays = STAYS.get(resource.partition("/")[0])
    if removed or stays is None:
        return said
    return f"{said}; {stays}" + (f", as {claimant} is there now" if claimant is not None else "")


def _scope(id: str) -> str:
    """The environment of a service or sync target."""
    return id.split("/")[1] if "/" in id else ""
