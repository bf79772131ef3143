"""Environments on the page: their releases, what waits, what holds, and what can be done about it. Pure."""

from datetime import UTC, datetime
from typing import Final

from reconciler.control.records import describe
from reconciler.control.situation import Situation, told
from reconciler.holds import is_lifted
from reconciler.release import rules
from reconciler.release.past import Past, past_of
from reconciler.spec.model import Environment, Spec
from reconciler.status.conditions import Reason
from reconciler.status.documents import EnvironmentStatus, Recorded, Release, UnitStatus, Waiting
from reconciler.web.page.facts import Facts
from reconciler.web.page.model import (
    SHORT,
    Badge,
    EnvironmentView,
    ReleaseView,
    State,
    Tone,
    UnitView,
    Waits,
    short,
    stamp,
    state_of,
)

MAX_CHOICES = 20
"""Tags that a form offers."""

MAX_RELEASES = 50
"""Releases in the history."""

_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""Nothing is decided here."""


def environments(facts: Facts) -> tuple[EnvironmentView, ...]:
    """Those of the spec in the order in which releases pass through them, and those that left it."""
    spec = facts.spec or Spec(version=1)
    found = [_environment(facts, spec, environment) for environment in _in_order(spec)]
    gone = sorted(facts.recorded.environments.keys() - {f"environments/{name}" for name in spec.environments})
    if facts.spec is not None:
        found += [
            EnvironmentView(
                name=id.removeprefix("environments/"),
                state=State(Badge("not in the spec", Tone.IDLE)),
                holdable=False,
            )
            for id in gone
        ]
    return tuple(found)


def _in_order(spec: Spec) -> list[Environment]:
    """Each after the one that it is promoted from; otherwise as the spec has them."""
    placed: dict[str, Environment] = {}

    def place(name: str) -> None:
        if name in placed or name not in spec.environments:
            return
        environment = spec.environments[name]
        if (source := environment.release.promote_from) is not None:
            place(source)
        placed[name] = environment

    for name in spec.environments:
        place(name)
    return list(placed.values())


def _environment(facts: Facts, spec: Spec, environment: Environment) -> EnvironmentView:
    id = f"environments/{environment.name}"
    status = facts.recorded.environments.get(id) or EnvironmentStatus(id=id)
    situation = Situation(
        spec=spec, spec_commit="", recorded=facts.recorded, control=facts.control, by="", now=_NO_TIME
    )
    hold = facts.control.holds.get((environment.name, ""))
    suspended = facts.control.suspension_of(id)
    held = f"held {told(hold)}" if hold is not None else ""
    if suspended is not None:
        held = f"suspended {told(suspended)}"
    return EnvironmentView(
        name=environment.name,
        state=state_of(status.conditions),
        source=environment.release.promote_from or "",
        policy=_policy(environment),
        units=tuple(_unit(facts, environment, status, unit) for unit in situation.units_in(environment.name)),
        held=held,
        holdable=hold is None,
        suspended=suspended is not None,
    )


def _policy(environment: Environment) -> str:
    release = environment.release
    if release.promote_from is not None:
        soaks = release.soak is not None and release.approval == "none"
        words = [f"promoted from {release.promote_from}"]
        words += ["by itself after a soak"] if soaks else []
    elif release.cut == "external":
        words = [f"takes the tags that others make of {release.from_branch or 'the branch'}"]
    else:
        words = [f"released from {release.from_branch or 'the branch'}"]
    words += ["with approval"] if release.approval == "manual" else []
    words += ["in its windows"] if environment.windows else []
    return ", ".join(words)


def _unit(facts: Facts, environment: Environment, status: EnvironmentStatus, unit: str) -> UnitView:
    known = status.units.get(unit)
    release = known.release if known is not None else None
    pending = facts.control.pending(environment.name, unit, status.seen(unit))
    waiting = [each for each in status.waiting if each.unit == unit]
    source = _status_of(facts.recorded, environment.release.promote_from, unit)
    return UnitView(
        name=unit,
        tag=release.tag if release is not None else "",
        commit=short(release.commit) if release is not None else "",
        since=stamp(release.recorded_at) if release is not None else "",
        by=release.triggered_by if release is not None else "",
        outcome=outcome_of(release) if release is not None else None,
        reason=release.reason if release is not None else "",
        asked=f"{describe(pending)}, {told(pending)}" if pending is not None else "",
        refused=known.refused if known is not None else "",
        waits=tuple(_waits(facts, environment.name, status, each) for each in waiting),
        held=_held(facts, environment.name, status, unit),
        earlier=_tags(known.history, but=known.release.tag) if known is not None else (),
        promotable=_promotable(source, known),
    )


def _waits(facts: Facts, environment: str, status: EnvironmentStatus, waiting: Waiting) -> Waits:
    asks = waiting.reason == Reason.AWAITING_APPROVAL
    given = facts.control.approval_of(environment, waiting.unit, waiting.commit, status.seen(waiting.unit))
    return Waits(
        reason=waiting.reason,
        message=f"approved {told(given)}" if given is not None else waiting.message,
        tag=waiting.tag,
        commit=short(waiting.commit),
        approvable=asks and given is None,
    )


def _held(facts: Facts, environment: str, status: EnvironmentStatus, unit: str) -> str:
    """Why the unit stays at its release, where an operator can end that."""
    by = facts.control.hold_of(environment, unit)
    if by is not None:
        return f"held {told(by)}" if by.unit else ""  # that of the whole environment is told once
    holds = [
        each for each in status.holds if each.unit == unit and not is_lifted(each, environment, facts.control)
    ]
    return "; ".join(f"{each.reason}: {each.resource}" for each in holds)


def _status_of(recorded: Recorded, environment: str | None, unit: str) -> UnitStatus | None:
    known = recorded.environments.get(f"environments/{environment}")
    return known.units.get(unit) if known is not None else None


def _promotable(source: UnitStatus | None, known: UnitStatus | None) -> tuple[str, ...]:
    """What ran well in the environment before it and is not what runs here."""
    if source is None:
        return ()
    here = known.release.commit if known is not None else ""
    proven = [each for each in (source.release, *source.history) if rules.proven(each)]
    return tuple(dict.fromkeys(each.tag for each in proven if each.commit != here))[:MAX_CHOICES]


def _tags(releases: tuple[Release, ...], *, but: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.tag for each in releases if each.tag != but))[:MAX_CHOICES]


def outcome_of(release: Release) -> Badge:
    if release.outcome == "succeeded":
        return Badge("running", Tone.GOOD) if not release.reason else Badge("running in part", Tone.WAIT)
    if release.outcome == "failed":
        return Badge("failed", Tone.BAD)
    return Badge("rolling out", Tone.BUSY)


def history(recorded: Recorded) -> tuple[ReleaseView, ...]:
    """The newest releases of all environments, newest first."""
    return tuple(
        ReleaseView(
            at=stamp(past.release.recorded_at),
            environment=past.environment,
            unit=past.unit,
            tag=past.release.tag,
            kind=past.release.kind,
            commits=past.commits(SHORT),
            by=past.release.triggered_by,
            outcome=_outcome_then(past),
            reason=past.release.reason,
            current=past.current,
        )
        for past in past_of(recorded)[:MAX_RELEASES]
    )


def _outcome_then(past: Past) -> Badge:
    known = past.current or past.release.outcome
    return outcome_of(past.release) if known else Badge("not known", Tone.IDLE)
