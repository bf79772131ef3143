"""What people are told of an environment itself: what waits, what is held, what was refused. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.control.records import Record
from reconciler.control.state import ControlState
from reconciler.holds import hold_message, is_lifted
from reconciler.release.decide import Decision
from reconciler.spec.model import Spec
from reconciler.status.conditions import Reason
from reconciler.status.documents import Hold

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """One reason and one message for an environment."""

    reason: str
    message: str


def tell_environments(
    spec: Spec,
    decisions: Mapping[Pair, Decision],
    holds: Mapping[str, Sequence[Hold]],
    control: ControlState,
) -> dict[str, Told]:
    """By environment, where there is something to tell. `holds`: those that failures have set."""
    found: dict[str, Told] = {}
    for name in spec.environments:
        mine = {unit: each for (unit, of), each in decisions.items() if of == name}
        in_force = [hold for hold in holds.get(name, ()) if not is_lifted(hold, name, control)]
        parts = [
            *_stopped(name, control),
            *_held(name, in_force, mine),
            *_operators_holds(name, mine, control),
            *_refused(mine),
            *_waiting(mine, named=any(not hold.unit for hold in in_force)),
        ]
        if parts:
            found[name] = Told(parts[0].reason, "; ".join(dict.fromkeys(part.message for part in parts)))
    return found


def why(record: Record) -> str:
    """Who decided it, and why."""
    return f"{record.by}" + (f": {record.reason}" if record.reason else "")


def _stopped(name: str, control: ControlState) -> Iterable[Told]:
    if control.frozen is not None:
        yield Told(Reason.FROZEN, f"everything is frozen by {why(control.frozen)}; `trueup unfreeze` ends it")
    suspended = control.suspension_of(f"environments/{name}")
    if suspended is not None:
        yield Told(
            Reason.SUSPENDED,
            f"suspended by {why(suspended)}; `trueup resume environments/{name}` ends it",
        )


def _held(name: str, holds: Sequence[Hold], decisions: Mapping[str, Decision]) -> Iterable[Told]:
    of_secrets = [hold for hold in holds if not hold.unit]
    if of_secrets:
        waits = {
            unit: each.waiting.tag or each.waiting.commit[:12]
            for unit, each in decisions.items()
            if each.waiting is not None
        }
        yield Told(Reason.HOLD_ACTIVE, hold_message(name, of_secrets, waits))
    for hold in holds:
        if hold.unit:
            yield Told(
                Reason.HOLD_ACTIVE,
                f"{hold.unit} is held since {_what_happened(hold)}; `trueup unhold {name}` ends it, "
                "or a release that a person asks for",
            )


def _what_happened(hold: Hold) -> str:
    """Its `resource` is `app at v1.3.0` after a rollback by a person, else `services/… with v1.3.0`."""
    subject, _, tag = hold.resource.rpartition(" ")
    failed = subject.removesuffix(" with")
    if hold.reason != Reason.ROLLED_BACK:
        return f"{failed} failed with {tag}"
    fault = f", with which {failed} failed" if failed != subject else ""
    return f"it was rolled back from {tag}{fault}"


def _operators_holds(name: str, decisions: Mapping[str, Decision], control: ControlState) -> Iterable[Told]:
    records = {record.number: record for unit in decisions if (record := control.hold_of(name, unit))}
    for record in records.values():
        yield Told(
            Reason.HOLD_ACTIVE,
            f"{record.unit or name} is held by {why(record)}; `trueup unhold {name}` ends it",
        )


def _refused(decisions: Mapping[str, Decision]) -> Iterable[Told]:
    for each in decisions.values():
        if each.refused is not None:
            yield Told(Reason.RELEASE_REFUSED, each.refused[1])


def _waiting(decisions: Mapping[str, Decision], *, named: bool) -> Iterable[Told]:
    """`named`: what a hold keeps back has been told with the hold."""
    for unit, each in decisions.items():
        if each.waiting is None:
            continue
        reason, message = each.waiting.reason, each.waiting.message
        what = f"{each.waiting.tag or each.waiting.commit[:12]} of {unit} waits"
        if reason == Reason.WINDOW_CLOSED:
            yield Told(reason, f"{what}: {message}")
        elif reason != Reason.HOLD_ACTIVE:
            yield Told(reason, message)
        elif not named:
            yield Told(reason, what)
