"""The hold of an environment whose service failed when only its secrets had changed. Pure.

A release is not at fault where a new password fails, so its tag stays, and no other one is taken until the
service runs again: a new release on top would hide what broke. The service is tried again by itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from reconciler.control.state import ControlState
from reconciler.hashing import SECRET, changed_inputs
from reconciler.plan import Action, Step
from reconciler.spec.model import Spec
from reconciler.status.conditions import Reason, whole_second
from reconciler.status.documents import EnvironmentStatus, Hold, Recorded

if TYPE_CHECKING:
    from reconciler.apply import Outcome
    from reconciler.journal import StepRecord

SECRETS_FAILED = "SecretChangeFailed"
"""The reason of such a hold."""


def active_holds(
    recorded: Recorded, spec: Spec, is_frozen: Callable[[str], bool]
) -> dict[str, tuple[Hold, ...]]:
    """By environment, what holds it: not what is of a service that left the spec."""
    named = {service.id for service in spec.services}
    found: dict[str, tuple[Hold, ...]] = {}
    for name in spec.environments:
        status = recorded.environments.get(f"environments/{name}")
        if status is not None and (holds := active_in(status, named, is_frozen)):
            found[name] = holds
    return found


def is_lifted(hold: Hold, environment: str, control: ControlState) -> bool:
    """Whether an operator has ended it since; one of a secret whose record is not known ends by itself."""
    counts = bool(hold.unit or hold.decision)
    return counts and control.lifted_at(environment, hold.unit) > hold.decision


def active_in(
    status: EnvironmentStatus, named: Collection[str], is_frozen: Callable[[str], bool]
) -> tuple[Hold, ...]:
    """What holds one environment; `named` are the ids of the spec's resources."""
    return _left(status.holds, named, is_frozen)


def with_outcomes(
    status: EnvironmentStatus,
    steps: Iterable[Step],
    outcomes: "Mapping[str, Outcome]",
    *,
    named: Iterable[str],
    is_frozen: Callable[[str], bool],
    now: datetime,
    decision: int = 0,
) -> EnvironmentStatus:
    """An environment after a pass: held by what failed, no longer by what was deployed or left the spec.

    `named` are the ids of the spec's resources; `decision` is the number of the newest operator's record.
    """
    others = tuple(hold for hold in status.holds if hold.unit)
    holds = {hold.resource: hold for hold in _left(status.holds, set(named), is_frozen) if not hold.unit}
    for step in steps:
        if step.action is not Action.DEPLOY or not _belongs(step.resource, status):
            continue
        outcome = outcomes.get(step.resource)
        if outcome is not None and outcome.state == "succeeded":
            holds.pop(step.resource, None)
        elif outcome is None or outcome.state != "failed" or outcome.reason == Reason.SUPERSEDED:
            continue  # of what was overtaken nobody knows whether it works
        elif keys := only_secrets(step.changes):
            holds.setdefault(step.resource, _hold(step.resource, keys, now, decision))
    return msgspec.structs.replace(status, holds=(*others, *(holds[resource] for resource in sorted(holds))))


def with_untold_failures(recorded: Recorded, untold: "Iterable[StepRecord]") -> Recorded:
    """With the holds of failures that a killed pass had in its journal and did not publish."""
    for record in untold:
        service = recorded.services.get(record.resource)
        environment = recorded.environments.get("environments/" + "/".join(record.resource.split("/")[1:2]))
        if record.action != Action.DEPLOY or record.outcome != "failed" or service is None:
            continue
        if record.end_reason == Reason.SUPERSEDED:
            continue
        if environment is None or any(hold.resource == record.resource for hold in environment.holds):
            continue
        keyed = changed_inputs(service.inputs.keyed, record.inputs.keyed)
        if keyed and service.config_hash and service.inputs.public == dict(record.inputs.public):
            seen = recorded.summary.control if recorded.summary is not None else 0
            hold = _hold(record.resource, keyed, datetime.fromisoformat(record.ended_at), seen)
            recorded = recorded.put(msgspec.structs.replace(environment, holds=(*environment.holds, hold)))
    return recorded


def only_secrets(changes: Sequence[str]) -> tuple[str, ...]:
    """The names of the secrets that changed, where nothing else did."""
    if not all(change.startswith(SECRET) for change in changes):
        return ()
    return tuple(change.removeprefix(SECRET) for change in changes)


def hold_message(environment: str, holds: Sequence[Hold], waiting: Mapping[str, str]) -> str:
    """What people read of it; `waiting`: by unit, the release that would be taken otherwise."""
    failed = "; ".join(f"{hold.resource} failed ({', '.join(hold.keys)})" for hold in holds)
    waits = "".join(f"; {tag} of {unit} waits" for unit, tag in sorted(waiting.items()))
    return (
        f"{failed} when only secrets had changed, so {environment} stays at its releases{waits}; mend the "
        "secret: the deploy is tried again by itself, and the hold ends once it succeeds, or once the "
        "service leaves the spec"
    )


def _hold(resource: str, keys: tuple[str, ...], at: datetime, decision: int = 0) -> Hold:
    return Hold(reason=SECRETS_FAILED, resource=resource, keys=keys, at=whole_second(at), decision=decision)


def _belongs(resource: str, status: EnvironmentStatus) -> bool:
    return resource.startswith(f"services/{status.id.removeprefix('environments/')}/")


def _left(holds: Iterable[Hold], named: Iterable[str], is_frozen: Callable[[str], bool]) -> tuple[Hold, ...]:
    known = set(named)
    return tuple(hold for hold in holds if hold.unit or hold.resource in known or is_frozen(hold.resource))
