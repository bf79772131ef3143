"""What operators' decisions come to: the state that all records together leave. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.control.records import REQUESTS, Record

Scope = tuple[str, str]
"""(environment, unit); an empty unit stands for all of them."""


@dataclass(frozen=True, slots=True)
class ControlState:
    """Everything that is in force. `lifted`: the number of the newest record that ends holds of a scope."""

    last: int = 0
    """Number of the newest record; 0: there is none."""
    frozen: Record | None = None
    suspended: Mapping[str, Record] = field(default_factory=dict)
    """By what the record names: an id, or KIND/NAME."""
    holds: Mapping[Scope, Record] = field(default_factory=dict)
    lifted: Mapping[Scope, int] = field(default_factory=dict)
    overrides: Mapping[str, Record] = field(default_factory=dict)
    """By environment, the newest; whether its time is over is for the reader to say."""
    approvals: Mapping[tuple[str, str, str], Record] = field(default_factory=dict)
    """By (environment, unit, commit)."""
    requests: Mapping[Scope, Record] = field(default_factory=dict)
    """By (environment, unit), the newest that asks for another release."""

    def hold_of(self, environment: str, unit: str) -> Record | None:
        """The operator's hold on a unit there, or on the whole environment."""
        return self.holds.get((environment, unit)) or self.holds.get((environment, ""))

    def lifted_at(self, environment: str, unit: str) -> int:
        """The number of the newest record that ends whatever held the unit there; 0: none does."""
        return max(self.lifted.get((environment, unit), 0), self.lifted.get((environment, ""), 0))

    def suspension_of(self, resource: str) -> Record | None:
        """The record that suspends a resource, by its id or as `KIND/NAME` wherever it is."""
        kind, _, rest = resource.partition("/")
        names = {resource, f"{kind}/{rest.split('/')[1]}" if rest.count("/") else resource}
        return next((self.suspended[name] for name in sorted(names) if name in self.suspended), None)


def fold(records: Iterable[Record]) -> ControlState:
    """The state after all records, taken in the order of their numbers."""
    frozen: Record | None = None
    last = 0
    suspended: dict[str, Record] = {}
    holds: dict[Scope, Record] = {}
    lifted: dict[Scope, int] = {}
    overrides: dict[str, Record] = {}
    approvals: dict[tuple[str, str, str], Record] = {}
    requests: dict[Scope, Record] = {}
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
                suspended.pop(record.resource, None)
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
            case "revoke":
                pass  # of a node's certificate: nothing that a release depends on
        if record.kind in REQUESTS:
            requests[scope] = record
            if record.kind != "rollback":  # a person who asks for a release means it to be taken
                lifted[scope] = record.number
                holds.pop(scope, None)
    return ControlState(last, frozen, suspended, holds, lifted, overrides, approvals, requests)
