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
    left: tuple[str, ...] = ()
    """No longer wanted, once ours, and written by somebody else since: theirs now."""


def work_at(
    desired: DesiredTarget,
    status: TargetStatus | None,
    found: Mapping[str, SecretMeta],
    *,
    everything: bool,
) -> Work:
    """What a push has to do. `everything`: nobody knows how far the last one got, so nothing is trusted."""
    owned = status.owned if status is not None else {}
    known = status.inputs.keyed if status is not None else {}
    moved = status is None or status.inputs.public.get("place") != desired.inputs.public["place"]
    wanted = desired.inputs.keyed
    write = {
        name
        for name in wanted
        if everything
        or moved
        or is_foreign(name, owned, found)
        or (known.get(name) != wanted[name] and not (name in desired.soft_inputs and name in known))
    }
    gone = [] if moved else sorted(set(owned) - set(wanted))
    ours = [name for name in gone if name in found and not is_foreign(name, owned, found)]
    prune = desired.target.prune == "owned"
    return Work(
        write=tuple(sorted(write, key=lambda name: (group_of(desired.target, name), name))),
        delete=tuple(ours) if prune else (),
        left=tuple(name for name in gone if name in found and (not prune or name not in ours)),
    )


def is_foreign(name: str, owned: Mapping[str, str], found: Mapping[str, SecretMeta]) -> bool:
    """Whether what stands under a name is not what we wrote: gone, or written by somebody else since."""
    return name not in found or found[name].updated_at != owned.get(name)


def drift_at(desired: DesiredTarget, status: TargetStatus, found: Mapping[str, SecretMeta]) -> str:
    """How what is there differs from what was pushed; empty where it does not."""
    pushed = sorted(set(desired.inputs.keyed) & set(status.owned))
    gone = [name for name in pushed if name not in found]
    changed = [name for name in pushed if name in found and is_foreign(name, status.owned, found)]
    parts = ([f"{', '.join(gone)} gone"] if gone else []) + (
        [f"{', '.join(changed)} changed by somebody else"] if changed else []
    )
    return ", ".join(parts)


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
