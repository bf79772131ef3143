"""Decisions that stop something or let it go on: hold, freeze, suspend, override. Pure.

Each function gives the record that says it, or refuses what cannot be or would change nothing.
"""

from collections.abc import Iterable
from datetime import timedelta

from reconciler.control.records import Record
from reconciler.control.situation import DecisionRefused, Situation, told, unknown
from reconciler.control.state import NODES, covering
from reconciler.identity import project_id
from reconciler.status.conditions import whole_second

_PLURALS = {
    "environment": "environments",
    "service": "services",
    "project": "projects",
    "node": "nodes",
}


def hold(at: Situation, environment: str, unit: str | None, reason: str) -> Record:
    at.environment(environment)
    if unit is not None:
        at.unit(environment, unit)
    by = at.control.hold_of(environment, unit or "")
    if by is not None:
        raise DecisionRefused(f"{by.unit or environment} is held already, {told(by)}")
    return at.decide("hold", environment=environment, unit=unit or "", reason=reason)


def unhold(at: Situation, environment: str, unit: str | None, reason: str) -> Record:
    at.environment(environment)
    if unit is not None:
        at.unit(environment, unit)
    units = {unit} if unit is not None else _units(at, environment)
    if not any(_held(at, environment, each) for each in units):
        failed = [each.resource for each in at.status(environment).holds if not each.unit]
        raise DecisionRefused(
            f"{unit or environment} is not held" + (f" in {environment}" if unit else ""),
            hint=f"what new secrets hold there ends when {failed[0]} is deployed" if failed else None,
        )
    return at.decide("unhold", environment=environment, unit=unit or "", reason=reason)


def _units(at: Situation, environment: str) -> set[str]:
    """Every unit that may be held there; "" for the environment itself."""
    named = {unit for held, unit in at.control.holds if held == environment}
    return {"", *at.units_in(environment), *named, *(each.unit for each in at.status(environment).holds)}


def _held(at: Situation, environment: str, unit: str) -> bool:
    """By an operator, by a failure, or after a rollback."""
    if at.control.hold_of(environment, unit) is not None:
        return True
    lifted = at.control.lifted_at(environment, unit)
    return any(
        each.unit == unit and each.decision >= lifted for each in at.status(environment).holds if each.unit
    )


def freeze(at: Situation, reason: str) -> Record:
    if (by := at.control.frozen) is not None:
        raise DecisionRefused(f"everything is frozen already, {told(by)}")
    return at.decide("freeze", reason=reason)


def unfreeze(at: Situation, reason: str) -> Record:
    if at.control.frozen is None:
        raise DecisionRefused("nothing is frozen")
    return at.decide("unfreeze", reason=reason)


def override(at: Situation, environment: str, seconds: float, reason: str) -> Record:
    if not at.environment(environment).windows:
        raise DecisionRefused(f"{environment} has no windows that could be opened: it is always open")
    if not reason.strip():
        raise DecisionRefused("an override says why", hint="give --reason TEXT")
    until = whole_second(at.now + timedelta(seconds=seconds))
    return at.decide("override", environment=environment, until=until, reason=reason)


def suspend(at: Situation, resource: str, reason: str) -> Record:
    name = _known(resource, suspendable(at))
    if (by := at.control.suspension_of(name)) is not None:
        raise DecisionRefused(f"{by.resource} is suspended already, {told(by)}")
    return at.decide("suspend", resource=name, reason=reason)


def resume(at: Situation, resource: str, reason: str) -> Record:
    revoked = {f"{NODES}{node}" for node, _ in at.control.revoked}
    name = _known(resource, {*suspendable(at), *at.control.suspended, *revoked})
    if name in revoked:
        return at.decide("resume", resource=name, reason=reason)
    below = any(name in covering(each) for each in at.control.suspended)
    if at.control.suspension_of(name) is None and not below:
        in_spec = name in _suspended_in_spec(at)
        raise DecisionRefused(
            f"{name} is not suspended" + (" by a command" if in_spec else ""),
            hint="take `suspend: true` out of the spec" if in_spec else None,
        )
    return at.decide("resume", resource=name, reason=reason)


def revoke(at: Situation, node: str, reason: str) -> Record:
    """Takes a node's token back, and with it the certificate that was paired by it."""
    if node not in at.spec.nodes:
        raise unknown("node", node, at.spec.nodes)
    token_key = at.spec.nodes[node].token_key
    if (by := at.control.revocation_of(node, token_key)) is not None:
        raise DecisionRefused(
            f"{node} is revoked already, {told(by)}",
            hint=f"`trueup node rotate-token {node}` gives it another token",
        )
    return at.decide("revoke", resource=f"{NODES}{node}", token_key=token_key, reason=reason)


def _known(resource: str, names: Iterable[str]) -> str:
    kind, slash, rest = resource.strip("/").partition("/")
    name = f"{_PLURALS.get(kind, kind)}{slash}{rest}"
    if name not in names:
        raise unknown("service, project or environment", name, list(names))
    return name


def suspendable(at: Situation) -> set[str]:
    """KIND/NAME and ids of everything that can be suspended."""
    ids = {each.id for each in at.spec.services}
    ids |= {project_id(project) for project in at.spec.projects.values()}
    ids |= at.recorded.services.keys() | at.recorded.syncs.keys()
    return {name for id in ids for name in covering(id)} | {
        f"environments/{name}" for name in at.spec.environments
    }


def _suspended_in_spec(at: Situation) -> set[str]:
    ids = {each.id for each in at.spec.services if each.suspend}
    ids |= {project_id(project) for project in at.spec.projects.values() if project.suspend}
    return {name for id in ids for name in covering(id)}
