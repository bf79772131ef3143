"""What an operator's decision is judged by: the spec, what is recorded, and what was decided before. Pure."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from reconciler.control.records import Kind, Record
from reconciler.control.state import ControlState
from reconciler.errors import TrueupError
from reconciler.spec.model import Environment, Spec
from reconciler.status.conditions import bounded, whole_second
from reconciler.status.documents import EnvironmentStatus, Recorded, UnitStatus


class DecisionRefused(TrueupError):
    """A decision that cannot be, or that would change nothing: it is not recorded."""

    reason = "DecisionRefused"


class UnknownName(DecisionRefused):
    """A decision about something that is not there."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One look at everything, for one operator."""

    spec: Spec
    spec_commit: str
    recorded: Recorded
    control: ControlState
    by: str
    """`Name <email>`."""
    now: datetime

    def decide(self, kind: Kind, *, reason: str = "", **fields: object) -> Record:
        """A record of this operator, now, without its number."""
        return Record(kind=kind, by=self.by, at=whole_second(self.now), reason=bounded(reason), **fields)  # type: ignore[arg-type]

    def environment(self, name: str) -> Environment:
        if name not in self.spec.environments:
            raise unknown("environment", name, self.spec.environments)
        return self.spec.environments[name]

    def status(self, environment: str) -> EnvironmentStatus:
        id = f"environments/{environment}"
        return self.recorded.environments.get(id) or EnvironmentStatus(id=id)

    def unit_status(self, environment: str, unit: str) -> UnitStatus | None:
        return self.status(environment).units.get(unit)

    def units_in(self, environment: str) -> list[str]:
        """The units that something in the environment runs, now or with its release."""
        self.environment(environment)
        found = {each.unit for each in self.spec.services if each.environment == environment}
        found |= {
            project.unit
            for project in self.spec.projects.values()
            if project.unit is not None and project.environment == environment
        }
        found |= self.status(environment).units.keys() & self.spec.units.keys()
        return sorted(found)

    def unit(self, environment: str, name: str) -> str:
        units = self.units_in(environment)
        if name not in units:
            raise unknown(f"unit of {environment}", name, units)
        return name

    def chosen(self, environment: str, unit: str | None) -> list[str]:
        """The unit that was named, or all of the environment."""
        if unit is not None:
            return [self.unit(environment, unit)]
        if not (units := self.units_in(environment)):
            raise DecisionRefused(
                f"nothing in the spec runs in {environment}",
                hint="give a service or project that environment",
            )
        return units

    def only(self, environment: str, unit: str | None) -> str:
        """The unit that was named, or the only one of the environment."""
        units = self.chosen(environment, unit)
        if len(units) > 1:
            raise DecisionRefused(
                f"{environment} has {len(units)} units", hint=f"name one with --unit: {', '.join(units)}"
            )
        return units[0]


def unknown(what: str, name: str, known: Collection[str]) -> UnknownName:
    """The refusal of a name that nothing has."""
    near = difflib.get_close_matches(name, list(known), 1)
    listed = ", ".join(sorted(known)[:12])
    return UnknownName(
        f"there is no {what} {name!r}",
        hint=f"did you mean {near[0]}?" if near else f"there is {listed}" if listed else "the spec has none",
    )


def told(record: Record) -> str:
    """Who decided it, when and why."""
    why = f": {record.reason}" if record.reason else ""
    return f"by {record.by} on {record.at:%Y-%m-%d %H:%M} UTC{why}"
