"""What documents remember of before: outcomes of a resource, releases of an environment. Pure."""

from collections.abc import Sequence

import msgspec

from reconciler.status.conditions import whole_second
from reconciler.status.documents import (
    MAX_HISTORY,
    MAX_RELEASES,
    EnvironmentStatus,
    HistoryEntry,
    Release,
    UnitStatus,
)


def add_history(history: Sequence[HistoryEntry], entry: HistoryEntry) -> tuple[HistoryEntry, ...]:
    """`entry` in front, unless it repeats the newest one; at most five."""
    if history:
        newest = history[0]
        if (newest.revision, newest.outcome, newest.config_hash, newest.reason) == (
            entry.revision,
            entry.outcome,
            entry.config_hash,
            entry.reason,
        ):
            return tuple(history)
    return (msgspec.structs.replace(entry, at=whole_second(entry.at)), *history)[:MAX_HISTORY]


def record_release(status: EnvironmentStatus, unit: str, release: Release) -> EnvironmentStatus:
    """`status` with `release` as the unit's current one; unchanged if it is already.

    Tag, commit, spec revision and the decision behind it are compared: recording the same release again
    keeps its time and what became of it.
    """
    old = status.units.get(unit)
    if old is not None and _is_same(old.release, release):
        return status
    history = () if old is None else (old.release, *old.history)[:MAX_RELEASES]
    current = msgspec.structs.replace(release, recorded_at=whole_second(release.recorded_at))
    known = UnitStatus(
        release=current, history=history, decision=max(release.decision, old.decision if old else 0)
    )
    return msgspec.structs.replace(status, units={**status.units, unit: known})


def _is_same(old: Release, new: Release) -> bool:
    return (old.tag, old.commit, old.spec_revision, old.decision) == (
        new.tag,
        new.commit,
        new.spec_revision,
        new.decision,
    )
