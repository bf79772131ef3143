"""Steps whose ends no status file tells yet, and which git has overtaken: whoever led since has recorded
something newer of their resource. Pure.

A step keeps a mark of what was recorded when it began. Where another mark is found later, others acted
meanwhile, and what they recorded counts: neither is the result put over it, nor is the step taken for one
that was interrupted. No time and no epoch is compared, so that what nobody touched goes on as after any kill.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from reconciler.hashing import digest
from reconciler.plan import Action
from reconciler.recording import moved, with_moves
from reconciler.spec.model import Move
from reconciler.status.documents import Applied, Recorded, Release

if TYPE_CHECKING:
    from reconciler.journal_records import StepRecord

OVERTAKEN: Final = "overtaken"
"""The kind of the event that tells of one."""

LEFT_OUT: Final = "another primary has recorded something since; what this one had not told is left out"

NOTHING: Final = "nothing"


def mark_of(resource: str, recorded: Recorded) -> str:
    """Stands for what is recorded to have been done to a resource, or to a unit's release."""
    if resource.startswith("releases/"):
        release = _release(resource, recorded)
        if release is None:
            return NOTHING
        return digest([release.tag, release.commit, release.recorded_at.isoformat()])
    document = recorded.get(resource)
    if not isinstance(document, Applied):
        return NOTHING
    if not document.history and not document.last_attempted_revision:
        return NOTHING  # of what waits, or runs for the first time
    return digest([[each.revision, each.outcome, each.at.isoformat()] for each in document.history])


def overtaken(
    untold: "Iterable[StepRecord]", published: Recorded, moves: Sequence[Move], *, run: str
) -> "tuple[StepRecord, ...]":
    """Those of the steps that count no more. `run`: of this process, whose own records are no one else's."""
    now = with_moves(published, moves)
    return tuple(
        step
        for step in untold
        if step.known and step.run != run and mark_of(moved(step.resource, moves), now) != step.known
    )


def left_out(gone: "Iterable[StepRecord]", published: Recorded, moves: Sequence[Move]) -> tuple[str, ...]:
    """Of which resources people should know that. Not where just the same is recorded: by another primary, or
    by this one, which was killed before its journal knew."""
    now = with_moves(published, moves)
    found = {moved(step.resource, moves) for step in gone if not _is_recorded(step, now, moves)}
    return tuple(sorted(found))


def without(steps: "Iterable[StepRecord]", gone: "Iterable[StepRecord]") -> "tuple[StepRecord, ...]":
    ids = {step.id for step in gone}
    return tuple(step for step in steps if step.id not in ids)


def _is_recorded(step: "StepRecord", now: Recorded, moves: Sequence[Move]) -> bool:
    if step.action == Action.RELEASE:
        said, known = step.result.get("details"), _release(step.resource, now)
        return isinstance(said, Mapping) and known is not None and said.get("tag") == known.tag
    document = now.get(moved(step.resource, moves))
    if step.action in (Action.FORGET, Action.REMOVE):
        return document is None
    newest = document.history[0] if isinstance(document, Applied) and document.history else None
    return newest is not None and (newest.revision, newest.config_hash) == (step.revision, step.config_hash)


def _release(resource: str, recorded: Recorded) -> Release | None:
    _, environment, unit = resource.split("/", 2)
    status = recorded.environments.get(f"environments/{environment}")
    known = status.units.get(unit) if status is not None else None
    return known.release if known is not None else None
