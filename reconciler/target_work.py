"""What is to be done at a secret target, from what is wanted, recorded and found there. Pure.

Values over there cannot be read. A name is in order if it exists with the time that was seen after our own
write, and if what we wrote has the fingerprint that is wanted now.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.desired_model import DesiredTarget
from reconciler.github.scopes import SecretMeta
from reconciler.spec.model import SecretTarget
from reconciler.status.documents import TargetStatus


@dataclass(frozen=True, slots=True)
class Work:
    """`write` is ordered so that the members of a group follow each other."""

    write: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    disowned: tuple[str, ...] = ()
    """No longer wanted, once ours, and gone or written by somebody else since: ours no more."""
    held: tuple[str, ...] = ()
    """Left as they are: something old or a fallback serves in place of what was written."""


def work_at(
    desired: DesiredTarget,
    status: TargetStatus | None,
    found: Mapping[str, SecretMeta],
    *,
    everything: bool,
) -> Work:
    """What a push has to do. `everything`: nobody knows how far the last one got, so nothing is trusted."""
    wanted = desired.inputs.keyed
    owned = owned_at(desired, status)
    same = status is not None and status.inputs.public == {**status.inputs.public, **_of_place(desired)}
    known = status.inputs.keyed if status is not None and same else {}
    held = held_at(desired, status)
    write = {
        name
        for name in wanted.keys() - held
        if everything
        or is_foreign(name, owned, found)
        or known.get(name) != wanted[name]
        or found[name].visibility not in (None, desired.target.visibility)
    }
    gone = sorted(set(owned) - set(wanted))
    ours = [name for name in gone if not is_foreign(name, owned, found)]
    return Work(
        write=tuple(sorted(write, key=lambda name: (group_of(desired.target, name), name))),
        delete=tuple(ours) if desired.target.prune == "owned" else (),
        disowned=tuple(name for name in gone if name not in ours),
        held=tuple(sorted(held)),
    )


def _of_place(desired: DesiredTarget) -> dict[str, str]:
    """The inputs that every name has to be written anew for."""
    return {
        name: desired.inputs.public[name] for name in ("place", "access") if name in desired.inputs.public
    }


def owned_at(desired: DesiredTarget, status: TargetStatus | None) -> Mapping[str, str]:
    """What is ours where the target is now; what was written elsewhere stays there."""
    if status is None or status.inputs.public.get("place") != desired.inputs.public["place"]:
        return {}
    return status.owned


def held_at(desired: DesiredTarget, status: TargetStatus | None) -> frozenset[str]:
    """The names that are not to be written for now.

    What was written came from the source itself, and is better than what serves in its place. A group with
    such a name is held as a whole: half of it new would not fit together.
    """
    if status is None or not owned_at(desired, status):
        return frozenset()
    known, wanted = status.inputs.keyed, desired.inputs.keyed
    held = {
        name
        for name in desired.soft_inputs
        if name in known and name in wanted and known[name] != wanted[name]
    }
    for group in desired.target.groups:
        if not held.isdisjoint(group):
            held |= set(group) & wanted.keys()
    return frozenset(held)


def is_foreign(name: str, owned: Mapping[str, str], found: Mapping[str, SecretMeta]) -> bool:
    """Whether what stands under a name is not what we wrote: gone, or written by somebody else since."""
    return name not in found or found[name].updated_at != owned.get(name)


def drift_at(desired: DesiredTarget, status: TargetStatus, found: Mapping[str, SecretMeta]) -> str:
    """How what is there differs from what was pushed, as far as it can be put right; empty: it does not."""
    owned, target = owned_at(desired, status), desired.target
    pushed = sorted((set(desired.inputs.keyed) & set(owned)) - held_at(desired, status))
    there = [name for name in pushed if name in found]
    parts = {
        "gone": [name for name in pushed if name not in found],
        "changed by somebody else": [name for name in there if is_foreign(name, owned, found)],
        "visible to others than the spec says": [
            name for name in there if found[name].visibility not in (None, target.visibility)
        ],
    }
    if target.prune == "owned":
        rest = sorted(set(owned) - set(desired.inputs.keyed))
        parts["no longer listed, to be deleted"] = [
            name for name in rest if not is_foreign(name, owned, found)
        ]
    return ", ".join(f"{', '.join(names)} {what}" for what, names in parts.items() if names)


def held_and_foreign(
    desired: DesiredTarget, status: TargetStatus, found: Mapping[str, SecretMeta]
) -> tuple[str, ...]:
    """Names that are not as we wrote them, and cannot be put right while something else serves."""
    owned = owned_at(desired, status)
    return tuple(sorted(name for name in held_at(desired, status) if is_foreign(name, owned, found)))


def group_of(target: SecretTarget, name: str) -> int:
    """The first group that a name is in; those in none come last, each by itself."""
    return next((number for number, group in enumerate(target.groups) if name in group), len(target.groups))


def incomplete_groups(target: SecretTarget, due: Mapping[str, bool]) -> list[str]:
    """The groups that were begun and not finished, in words. `due`: by name, whether it has been written."""
    found: list[str] = []
    for group in target.groups:
        members = [name for name in group if name in due]
        missing = [name for name in members if not due[name]]
        if missing and len(missing) < len(group):
            there = [name for name in group if name not in missing]
            found.append(f"{', '.join(there)} in place and {', '.join(missing)} not")
    return found
