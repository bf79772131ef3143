"""Decisions that ask for another release, or let one through: promote, release, rollback, approve. Pure.

Each function names tag and commit, so that what is done later is what was decided on, whatever happens in
between. Where no unit is named, every unit that has something to do gets a record of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.control.records import Record
from reconciler.control.situation import DecisionRefused, Situation, told, unknown
from reconciler.release import rules
from reconciler.release.facts import UnitFacts, spec_run_by
from reconciler.status.conditions import Reason
from reconciler.status.documents import Release, UnitStatus


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be recorded, and why some units are left out."""

    records: tuple[Record, ...]
    left_out: tuple[str, ...] = ()


def promote(
    at: Situation,
    source: str,
    target: str,
    unit: str | None,
    *,
    tag: str | None = None,
    drop_hotfix: bool = False,
    reason: str = "",
) -> Asked:
    """The release that the source runs, or the one of this tag that it has run, for the target."""
    at.environment(source)
    _require_source(at, source, target)
    found: dict[str, Release] = {}
    left_out: list[str] = []
    for name in _with_tag(at, source, at.chosen(target, unit), tag):
        release = _promotable(at, source, target, name, tag)
        if isinstance(release, str):
            left_out.append(release)
        else:
            found[name] = release
    if not found:
        raise DecisionRefused(f"there is nothing to promote from {source} to {target}: {'; '.join(left_out)}")
    records = tuple(
        at.decide(
            "promote",
            environment=target,
            unit=name,
            source=source,
            tag=release.tag,
            commit=release.commit,
            drop_hotfix=drop_hotfix,
            reason=reason,
        )
        for name, release in found.items()
    )
    return Asked(records, tuple(left_out))


def _require_source(at: Situation, source: str, target: str) -> None:
    allowed = at.environment(target).release.promote_from
    if allowed is None:
        raise DecisionRefused(
            f"nothing is promoted to {target}: it takes releases of its own",
            hint=f"use `trueup release {target}`, or give it `promote_from: {source}` in the spec",
        )
    if allowed != source:
        raise DecisionRefused(
            f"{target} is promoted to from {allowed}, and not from {source}",
            hint=f"use `trueup promote {allowed} {target}`",
        )


def _with_tag(at: Situation, source: str, units: list[str], tag: str | None) -> list[str]:
    """Those units that have run the tag in the source; all where none was named."""
    if tag is None:
        return units
    known = {name: _releases(at.unit_status(source, name)) for name in units}
    named = [name for name in units if any(each.tag == tag for each in known[name])]
    if not named:
        tags = {each.tag for releases in known.values() for each in releases}
        raise unknown(f"release of {source}", tag, tags)
    return named


def _promotable(at: Situation, source: str, target: str, unit: str, tag: str | None) -> Release | str:
    """The release to promote, or why there is none."""
    status = at.unit_status(source, unit)
    if status is None:
        return f"{source} runs no release of {unit} yet"
    release = rules.find_release(status, tag) if tag is not None else status.release
    assert release is not None  # a unit without this tag was sorted out
    facts = UnitFacts(at.spec.units[unit], at.environment(target), tags=(), source=status)
    if (unproven := rules.unproven(facts, release.tag, release.commit)) is not None:
        good = next((each.tag for each in _releases(status) if rules.proven(each)), None)
        instead = f" (an earlier one can be named: --tag {good})" if tag is None and good else ""
        return f"{unproven.message}{instead}"
    current = at.unit_status(target, unit)
    spec_revision = spec_run_by(at.spec, source, at.recorded) if release == status.release else None
    if current is not None and _is_same(at, target, current, release, spec_revision):
        return f"{target} runs {release.commit[:12]} of {unit} already, as {current.release.tag}"
    pending = pending_request(at, target, unit)
    if pending is not None and (pending.kind, pending.commit) == ("promote", release.commit):
        return f"{release.tag} of {unit} was asked for already, {told(pending)}"
    return release


def _is_same(
    at: Situation, target: str, current: UnitStatus, release: Release, spec_revision: str | None
) -> bool:
    """Whether the target would get nothing new: no other commit, and no other spec where that is released."""
    same_spec = at.environment(target).spec_from == "head" or (spec_revision or release.spec_revision) in (
        None,
        current.release.spec_revision,
    )
    return current.release.commit == release.commit and same_spec


def pending_request(at: Situation, environment: str, unit: str) -> Record | None:
    """What was asked for last and neither done nor refused yet."""
    return at.control.pending(environment, unit, at.status(environment).seen(unit))


def release(
    at: Situation,
    environment: str,
    unit: str | None,
    heads: Mapping[str, str | DecisionRefused],
    *,
    bump: str = "",
    reason: str = "",
) -> Asked:
    """Another number: at the tip of the branch, or where releases are promoted at what the source runs.

    `heads`: by unit, the tip of the branch that its releases are made from, or why it is not known.
    """
    source = at.environment(environment).release.promote_from
    found: list[Record] = []
    left_out: list[str] = []
    for name in at.chosen(environment, unit):
        if source is not None:
            release = _promotable(at, source, environment, name, None)
            if isinstance(release, str):
                left_out.append(release)
                continue
            where = {"commit": release.commit, "tag": release.tag, "source": source}
        else:
            head = heads[name]
            if isinstance(head, DecisionRefused):
                raise head
            current = at.unit_status(environment, name)
            if current is not None and current.release.commit == head and not bump:
                left_out.append(f"{environment} runs {head[:12]} of {name} already, as {current.release.tag}")
                continue
            where = {"commit": head}
        found.append(
            at.decide("release", environment=environment, unit=name, bump=bump, reason=reason, **where)
        )
    if not found:
        raise DecisionRefused(f"there is nothing to release in {environment}: {'; '.join(left_out)}")
    return Asked(tuple(found), tuple(left_out))


def take_over(
    at: Situation, environment: str, unit: str, tag: str, commit: str, *, reason: str = ""
) -> Asked:
    """A tag that is there already as the first release of the unit in the environment."""
    record = at.decide("release", environment=environment, unit=unit, tag=tag, commit=commit, reason=reason)
    return Asked((record,))


def rollback(at: Situation, environment: str, unit: str | None, to: str | None, *, reason: str = "") -> Asked:
    """Back to the release that ran last, or to an earlier one by its tag."""
    at.environment(environment)
    name = _unit_to_return(at, environment, unit, to)
    status = at.unit_status(environment, name)
    if status is None:
        raise DecisionRefused(f"{environment} runs no release of {name} yet")
    now = status.release
    if to is None:
        target = rules.last_good(status)
        if target is None:
            others = list(dict.fromkeys(each.tag for each in status.history if each.tag != now.tag))
            ran = f"no release of {name} ran well in {environment} before {now.tag}"
            raise DecisionRefused(
                f"there is nothing to roll back to: {ran}"
                + (f"; name one that was left with --to: {', '.join(others[:5])}" if others else "")
            )
    else:
        if to == now.tag:
            raise DecisionRefused(f"{environment} runs {to} of {name} already")
        target = next((each for each in status.history if each.tag == to), None)
        if target is None:
            raise unknown(f"earlier release of {name} in {environment}", to, {e.tag for e in status.history})
    return Asked(
        (
            at.decide(
                "rollback",
                environment=environment,
                unit=name,
                tag=target.tag,
                commit=target.commit,
                reason=reason,
            ),
        )
    )


def _unit_to_return(at: Situation, environment: str, unit: str | None, to: str | None) -> str:
    if unit is None and to is not None:
        named = [
            name
            for name in at.chosen(environment, None)
            if any(each.tag == to for each in _releases(at.unit_status(environment, name)))
        ]
        if len(named) == 1:
            return named[0]
    return at.only(environment, unit)


def approve(at: Situation, environment: str, unit: str | None, tag: str | None, *, reason: str = "") -> Asked:
    """Lets through what waits for approval; with a tag, also what will ask for it."""
    if at.environment(environment).release.approval != "manual":
        raise DecisionRefused(f"{environment} asks for no approval")
    found: list[Record] = []
    left_out: list[str] = []
    for name in at.chosen(environment, unit):
        waiting = {commit: each for each, commit in _waiting(at, environment, name, tag)}
        given = [each for commit, each in waiting.items() if _approval(at, environment, name, commit)]
        left_out += [f"{each or 'what waits'} of {name} is approved already" for each in given]
        found += [
            at.decide("approve", environment=environment, unit=name, tag=each, commit=commit, reason=reason)
            for commit, each in waiting.items()
            if each not in given
        ]
    if not found:
        why = f": {'; '.join(left_out)}" if left_out else ""
        what = f"{tag} does not wait for approval" if tag else "nothing waits for approval"
        raise DecisionRefused(f"{what} in {environment}{why}")
    return Asked(tuple(found), tuple(left_out))


def _waiting(at: Situation, environment: str, unit: str, tag: str | None) -> list[tuple[str, str]]:
    """(tag, commit) of what was asked for, else of what waits; with a tag also of what the source has run."""
    request = pending_request(at, environment, unit)
    if request is not None and request.kind != "rollback":
        found = [(request.tag, request.commit)]
    else:
        found = [
            (each.tag, each.commit)
            for each in at.status(environment).waiting
            if each.unit == unit and each.reason == Reason.AWAITING_APPROVAL
        ]
    source = at.environment(environment).release.promote_from
    if tag is not None and source is not None:
        release = rules.find_release(at.unit_status(source, unit), tag)
        found += [(release.tag, release.commit)] if release is not None else []
    return [each for each in dict.fromkeys(found) if tag in (None, each[0])]


def _approval(at: Situation, environment: str, unit: str, commit: str) -> Record | None:
    return at.control.approval_of(environment, unit, commit, at.status(environment).seen(unit))


def _releases(status: UnitStatus | None) -> tuple[Release, ...]:
    return () if status is None else (status.release, *status.history)
