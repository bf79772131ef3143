"""Which release a unit gets in an environment: what runs, what comes next, and what keeps it back. Pure.

In this order: what an operator asked for and was not acted on yet; else what comes by itself, which is a
promotion after its soak, a tag that others made, or a change of the tracked branch. `rules` judges each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.control.records import Record
from reconciler.git.objects import Tag
from reconciler.observation import Setback
from reconciler.release import rules
from reconciler.release.current import Release, ReleaseProblem, newest_release, none_yet, still_there
from reconciler.release.facts import Candidate, Common, Next, UnitFacts
from reconciler.release.numbers import made_before, next_tag
from reconciler.release.rules import Refusal, Wait
from reconciler.release.versions import parse_version, read_trailers
from reconciler.status.documents import Release as Recorded
from reconciler.status.documents import Waiting


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one unit in one environment in this pass."""

    current: Release | ReleaseProblem | Setback
    """What it runs as things are."""
    next: Next | None = None
    """What it is going to run, where that is another."""
    waiting: Waiting | None = None
    refused: tuple[int, str] | None = None
    """The number of an operator's record that the rules refuse, and why."""


def decide(facts: UnitFacts, common: Common) -> Decision:
    """The release of one unit in one environment."""
    if isinstance(facts.tags, Setback):
        return Decision(facts.tags)
    current = runs(facts, facts.tags)
    request = common.control.pending(facts.environment.name, facts.unit.name, facts.seen)
    if common.control.frozen is not None or common.control.suspension_of(_id(facts)) is not None:
        return Decision(current)
    if request is not None:
        return _asked(facts, common, current, request)
    candidate = _coming(facts, common)
    if isinstance(candidate, Candidate):
        return _judged(facts, common, current, candidate)
    if isinstance(candidate, Waiting):
        return Decision(current, waiting=candidate)
    return Decision(current)


def _id(facts: UnitFacts) -> str:
    return f"environments/{facts.environment.name}"


def runs(facts: UnitFacts, tags: Sequence[Tag]) -> Release | ReleaseProblem:
    """The recorded release, whose tag must neither have moved nor vanished."""
    if facts.recorded is None:
        return none_yet(facts.unit, facts.environment, tags)
    known = facts.recorded.release
    return still_there(
        facts.unit, facts.environment.name, Release(known.tag, known.commit, known.spec_revision), tags
    )


# --- what somebody asked for -------------------------------------------------------------------


def _asked(facts: UnitFacts, common: Common, current: Release | ReleaseProblem, request: Record) -> Decision:
    if request.kind == "rollback":
        return _rollback(facts, current, request)
    candidate = candidate_of(facts, common, request)
    if isinstance(candidate, Refusal):
        return Decision(current, refused=(request.number, candidate.message))
    return _judged(facts, common, current, candidate)


def candidate_of(facts: UnitFacts, common: Common, request: Record) -> Candidate | Refusal:
    """The release that a request means, with what it alone has to fulfil."""
    policy = facts.environment.release
    by = f"{request.kind} by {request.by}" + (f": {request.reason}" if request.reason else "")
    if request.kind == "hotfix":
        if facts.recorded is None:
            return Refusal(f"{facts.unit.name} runs nothing in {facts.environment.name} that could be fixed")
        return Candidate(
            kind="hotfix",
            commit=request.commit,
            # A hotfix changes code alone: what it runs with stays as released.
            spec_revision=facts.recorded.release.spec_revision or common.spec_commit,
            tag=request.tag,
            triggered_by=by,
            request=request,
        )
    if request.kind == "release" and request.tag and not request.source:
        if facts.recorded is not None:
            return Refusal(
                f"{facts.unit.name} has a release in {facts.environment.name}; an existing tag can only be "
                "its first one"
            )
        return Candidate(
            kind="release",
            commit=request.commit,
            spec_revision=common.spec_commit,
            tag=request.tag,
            triggered_by=by,
            request=request,
        )
    if request.kind == "release" and policy.promote_from is None:
        return Candidate(
            kind="release",
            commit=request.commit,
            spec_revision=common.spec_commit,
            bump=request.bump or policy.bump_or_default,
            triggered_by=by,
            request=request,
        )
    if (refused := rules.unproven(facts, request.tag, request.commit)) is not None:
        return refused
    source = rules.find_release(facts.source, request.tag, request.commit)
    assert source is not None  # proven
    runs_now = facts.source is not None and facts.source.release == source
    known = facts.recorded.release if facts.recorded is not None else None
    if known is not None and not runs_now and known.commit == source.commit:
        # With the settings of that time, which may be older than those that run now.
        return rules.runs_already(facts, known)
    return Candidate(
        kind="promotion",
        commit=source.commit,
        spec_revision=(facts.source_spec if runs_now else None) or source.spec_revision or common.spec_commit,
        bump=request.bump or policy.bump_or_default,
        promoted_from=source.tag,
        triggered_by=by,
        request=request,
    )


def _rollback(facts: UnitFacts, current: Release | ReleaseProblem, request: Record) -> Decision:
    """Back to an earlier release; neither windows nor approval nor holds keep it back."""
    assert not isinstance(facts.tags, Setback)
    known = facts.recorded
    target = (
        None if known is None else next((each for each in known.history if each.tag == request.tag), None)
    )
    where = f"{facts.unit.name} in {facts.environment.name}"
    if known is not None and known.release.tag == request.tag:
        return Decision(current, refused=(request.number, f"{where} runs {request.tag} already"))
    if known is None or target is None:
        return Decision(current, refused=(request.number, f"{where} has no earlier release {request.tag}"))
    found = next((tag for tag in facts.tags if tag.name == target.tag), None)
    if found is None or found.commit != target.commit:
        return Decision(
            current, refused=(request.number, f"the tag {target.tag} is gone or stands for another commit")
        )
    by = f"rollback by {request.by}" + (f": {request.reason}" if request.reason else "")
    return Decision(
        current,
        Next(
            kind="rollback",
            tag=target.tag,
            commit=target.commit,
            spec_revision=target.spec_revision,
            cut=False,
            promoted_from=target.promoted_from,
            triggered_by=by,
            decision=request.number,
            previous=known.release.commit,
            previous_tag=known.release.tag,
        ),
    )


# --- what comes by itself ----------------------------------------------------------------------


def _coming(facts: UnitFacts, common: Common) -> Candidate | Waiting | None:
    if facts.environment.release.promote_from is not None:
        return _promotion(facts, common)
    found = followed(facts, common)
    if found is not None and rules.refusal(facts, found) is None:
        return found
    # A tag that cannot be taken must not keep the branch from being followed.
    return _cut(facts, common) or found


def _promotion(facts: UnitFacts, common: Common) -> Candidate | Waiting | None:
    """What the source environment has run for long enough."""
    found = soaked(facts, common)
    if found is None or isinstance(found, Waiting):
        return found
    assert facts.source is not None
    runs_now = found == facts.source.release
    return Candidate(
        kind="promotion",
        commit=found.commit,
        spec_revision=(facts.source_spec if runs_now else None) or found.spec_revision or common.spec_commit,
        bump=facts.environment.release.bump_or_default,
        promoted_from=found.tag,
        triggered_by=f"automatic promotion from {facts.environment.release.promote_from}",
    )


def soaked(facts: UnitFacts, common: Common) -> Recorded | Waiting | None:
    """The newest release of the source that ran there for the whole soak, and was not promoted yet."""
    soak, source, known = facts.environment.release.soak, facts.source, facts.recorded
    if soak is None or source is None:
        return None
    passed = {each.promoted_from for each in (known.release, *known.history)} if known is not None else set()
    waits: Waiting | None = None
    until = common.now
    stood = list(rules.stood(source))
    for release in (source.release, *source.history):
        if release.tag in passed or (known is not None and release.commit == known.release.commit):
            break  # that one and what came before it was promoted, and maybe left again since
        if rules.proven(release) and release.kind != "rollback" and release in stood:
            wait = rules.soaking(facts, release, soak, until)
            if wait is None:
                return release
            if release is source.release:
                waits = _waiting(facts, wait, release.tag, release.commit)
        until = release.recorded_at
    return waits


def followed(facts: UnitFacts, common: Common) -> Candidate | None:
    """A tag that others made for this environment, once it is higher than the recorded one."""
    assert not isinstance(facts.tags, Setback)
    newest = newest_release(facts.unit, facts.environment.name, facts.tags)
    if newest is None:
        return None
    if facts.recorded is not None:
        known = facts.recorded
        if newest.tag in {release.tag for release in (known.release, *known.history)}:
            return None  # it ran here before, and was left
        new, old = (parse_version(tag, facts.unit) for tag in (newest.tag, known.release.tag))
        if new is None or (old is not None and new <= old):
            return None
    # One that a pass cut and could not record, as it was killed: it stays what it is.
    made_for = next(read_trailers(tag).triggered_by for tag in facts.tags if tag.name == newest.tag)
    is_ours = facts.head is not None and made_for is not None
    return Candidate(
        kind="cut" if is_ours else "external",
        commit=newest.commit,
        spec_revision=newest.spec_revision or common.spec_commit,
        tag=newest.tag,
        triggered_by=made_for if is_ours and made_for else f"the tag {newest.tag}",
    )


def _cut(facts: UnitFacts, common: Common) -> Candidate | Waiting | None:
    """The tip of the branch, where something of the unit is another there."""
    if facts.head is None:
        return None
    if isinstance(facts.head, Setback):
        return Waiting(unit=facts.unit.name, reason=facts.head.reason, message=facts.head.message)
    known = facts.recorded
    if known is not None and (facts.head == known.release.commit or not facts.changed):
        return None
    branch = facts.environment.release.from_branch
    what = ", ".join(facts.changed[:3]) + (", …" if len(facts.changed) > 3 else "")
    return Candidate(
        kind="cut",
        commit=facts.head,
        spec_revision=common.spec_commit,
        bump=facts.environment.release.bump_or_default,
        triggered_by=f"{branch} changed: {what}" if what else f"the first release of {branch}",
    )


# --- judging -----------------------------------------------------------------------------------


def _judged(
    facts: UnitFacts, common: Common, current: Release | ReleaseProblem, candidate: Candidate
) -> Decision:
    request = candidate.request
    if (refused := rules.refusal(facts, candidate)) is not None:
        if request is not None:
            return Decision(current, refused=(request.number, refused.message))
        wait = Wait(refused.reason, refused.message)
        return Decision(current, waiting=_waiting(facts, wait, candidate.told, candidate.commit))
    let_through = rules.approval(facts, common, candidate)
    for found in (
        rules.held(facts, common, request),
        let_through if isinstance(let_through, Wait) else None,
        rules.window(facts.environment, common),
    ):
        if found is not None:
            return Decision(current, waiting=_waiting(facts, found, candidate.told, candidate.commit))
    numbers = [request.number if request is not None else 0]
    numbers += [let_through.number] if isinstance(let_through, Record) else []
    return Decision(current, _next(facts, candidate, decision=max(numbers)))


def _waiting(facts: UnitFacts, wait: Wait, tag: str, commit: str) -> Waiting:
    return Waiting(unit=facts.unit.name, reason=wait.reason, message=wait.message, tag=tag, commit=commit)


def _next(facts: UnitFacts, candidate: Candidate, *, decision: int) -> Next:
    assert not isinstance(facts.tags, Setback)
    known = facts.recorded.release if facts.recorded is not None else None
    release = Next(
        kind=candidate.kind,
        tag=candidate.tag,
        commit=candidate.commit,
        spec_revision=candidate.spec_revision,
        cut=not candidate.tag,
        bump=candidate.bump,
        promoted_from=candidate.promoted_from,
        triggered_by=candidate.triggered_by,
        decision=decision,
        previous=known.commit if known is not None else "",
        previous_tag=known.tag if known is not None else "",
    )
    if not release.cut:
        return release
    if (made := made_before(facts, facts.tags, release)) is not None:
        return replace(release, tag=made.name, cut=False)
    return replace(release, tag=next_tag(facts, facts.tags, candidate.bump))
