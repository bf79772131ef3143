"""What keeps the steps of a plan from happening now: closed windows and a freeze. Pure data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Gates:
    """`told` are findings on environments, as (reason, message) by id."""

    told: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)
    """By environment, why nothing is deployed there now."""
    exempt: Collection[tuple[str, str]] = ()
    """(unit, environment) that go back to an earlier release, which no window keeps back."""
    frozen: str = ""
    """Why nothing at all is done; empty: it is not so."""


def release_id(unit: str, environment: str) -> str:
    """The id of the step that gives a unit another release there. It has no status file of its own."""
    return f"releases/{environment}/{unit}"
