"""What operators' decisions come to: the state that all records together leave. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from reconciler.control.records import REQUESTS, Record

NODES: Final = "nodes/"

Scope = tuple[str, str]
"""(environment, unit); an empty unit stands for all of them."""


@dataclass(frozen=True, slots=True)
class ControlState:
    """Everything that is in force. `lifted`: the number of the newest record that ends holds of a scope;
    `resumed`: that of the newest one that ends suspensions of a name."""

    last: int = 0
    """Number of the newest record; 0: there is none."""
    frozen: Record | None = None
    suspended: Mapping[str, Record] = field(default_factory=dict)
    """By what the record names: an id, or KIND/NAME."""
    resumed: Mapping[str, int] = field(default_factory=dict)
    holds: Mapping[Scope, Record] = field(default_factory=dict)
    lifted: Mapping[Scope, int] = field(default_factory=dict)
    overrides: Mapping[str, Record] = field(default_factory=dict)
    """By environment, the newest; whether its time is over is for the reader to say."""
    approvals: Mapping[tuple[str, str, str], Record] = field(default_factory=dict)
    """By (environment, unit, commit)."""
    revoked: Mapping[tuple[str, str], Record] = field(default_factory=dict)
    """By node and the public half of its token; an empty half stands for whatever token it has."""
    returned: Mapping[str, Record] = field(default_factory=dict)
    """By the id of a sync target: the kept release that it was switched back to, until that is lifted."""
    requests: Mapping[Scope, Record] = field(default_factory=dict)
    """By (environment, unit), the newest that asks for another release."""

    def pending(self, environment: str, unit: str, seen: int) -> Record | None:
        """The newest request for a unit there after record `seen`, the last one acted on or refused."""
        request = self.requests.get((environment, unit))
        return request if request is not None and request.number > seen else None

    def approval_of(self, environment: str, unit: str, commit: str, seen: int) -> Record | None:
        """The approval of a commit, unless an earlier release has used it up: `seen` as in `pending`."""
        given = self.approvals.get((environment, unit, commit))
        return given if given is not None and given.number > seen else None

    def hold_of(self, environment: str, unit: str) -> Record | None:
        """The operator's hold on a unit there, or on the environment: one unit alone may leave that."""
        if (own := self.holds.get((environment, unit))) is not None:
            return own
        whole = self.holds.get((environment, ""))
        if whole is not None and self.lifted.get((environment, unit), 0) > whole.number:
            return None
        return whole

    def lifted_at(self, environment: str, unit: str) -> int:
        """The number of the newest record that ends whatever held the unit there; 0: none does."""
        return max(self.lifted.get((environment, unit), 0), self.lifted.get((environment, ""), 0))

    def suspension_of(self, resource: str) -> Record | None:
        """The newest record that suspends a resource: by its id, or by a name that covers it."""
        names = covering(resource)
        found = max(
            (self.suspended[name] for name in names if name in self.suspended),
            key=lambda record: record.number,
            default=None,
        )
        ended = max((self.resumed.get(name, 0) for name in names), default=0)
        return found if found is not None and found.number > ended else None

    def revocation_of(self, node: str, token_key: str) -> Record | None:
        """The record that takes a node's token back. A new token is another one, and counts again."""
        return self.revoked.get((node, token_key)) or self.revoked.get((node, ""))

    def suspends(self, resource: str) -> bool:
        """Whether a service or sync target is suspended: itself, its environment or its node."""
        kind, *rest = resource.split("/")
        places = [f"environments/{rest[0]}"] if kind in ("services", "projects") and rest else []
        places += [f"nodes/{rest[2]}"] if kind == "projects" and len(rest) > 2 else []
        return any(self.suspension_of(each) is not None for each in (resource, *places))


def covering(resource: str) -> tuple[str, ...]:
    """The names that stand for a resource: its id, those of what it is a part of, and KIND/NAME.

    `projects/production/site/web-1/srv+site` is a part of `projects/production/site`, and both of them are
    `projects/site`.
    """
    parts = resource.split("/")
    names = ["/".join(parts[:count]) for count in range(len(parts), 2, -1)] or [resource]
    if len(parts) > 2:
        names.append(f"{parts[0]}/{parts[2]}")
    return tuple(names)


def fold(records: Iterable[Record]) -> ControlState:
    """The state after all records, taken in the order of their numbers."""
    frozen: Record | None = None
    last = 0
    suspended: dict[str, Record] = {}
    resumed: dict[str, int] = {}
    holds: dict[Scope, Record] = {}
    lifted: dict[Scope, int] = {}
    overrides: dict[str, Record] = {}
    approvals: dict[tuple[str, str, str], Record] = {}
    revoked: dict[tuple[str, str], Record] = {}
    requests: dict[Scope, Record] = {}
    returned: dict[str, Record] = {}
    for record in sorted(records, key=lambda each: each.number):
        last = record.number
        scope = (record.environment, record.unit)
        match record.kind:
            case "freeze":
                frozen = record
            case "unfreeze":
                frozen = None
            case "suspend":
                suspended[record.resource] = record
            case "resume":
                resumed[record.resource] = record.number
                for token in [each for each in revoked if f"{NODES}{each[0]}" == record.resource]:
                    del revoked[token]
                for name in list(suspended):
                    if record.resource in covering(name):
                        del suspended[name]
            case "hold":
                holds[scope] = record
            case "unhold":
                lifted[scope] = record.number
                for held in list(holds):
                    if held == scope or (not record.unit and held[0] == record.environment):
                        del holds[held]
            case "override":
                overrides[record.environment] = record
            case "approve":
                approvals[record.environment, record.unit, record.commit] = record
            case "node-rollback":
                returned[record.resource] = record
            case "node-unroll":
                returned.pop(record.resource, None)
            case "revoke":
                revoked[record.resource.removeprefix(NODES), record.token_key] = record
        if record.kind in REQUESTS:
            requests[scope] = record
            if record.kind != "rollback":  # a person who asks for a release means it to be taken
                lifted[scope] = record.number
                holds.pop(scope, None)
    return ControlState(
        last, frozen, suspended, resumed, holds, lifted, overrides, approvals, revoked, returned, requests
    )
