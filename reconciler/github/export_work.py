"""Which secrets a repository lacks that another one has, and how to ask for them. Pure.

GitHub tells no values, so that everything is judged by names and by the times of the last writes: a copy that
is older than what it was made from is out of date. The times are texts of one form and zone, whose order is
that of their text.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from reconciler.github.scopes import EnvironmentScope, RepositoryScope

MAX_BATCH: Final = 100
"""Names in one request, as `examples/github/export-secret.yml` takes them."""

DEFAULT_EVENT: Final = "export-secret"


@dataclass(frozen=True, slots=True)
class Route:
    """From where to where. `source` reads `owner/name`."""

    source: str
    target: RepositoryScope | EnvironmentScope
    event: str = DEFAULT_EVENT
    source_environment: str | None = None

    def __str__(self) -> str:
        return f"{self.source} to {self.target}"


@dataclass(frozen=True, slots=True)
class Found:
    """By name the time of the last write: of the target's own secrets, of those of its organisation that it
    may use, and of what the source could export. None: nobody looked."""

    own: Mapping[str, str]
    inherited: Mapping[str, str] = field(default_factory=dict)
    offered: Mapping[str, str] | None = None


class State(StrEnum):
    """What is found under a name that is wanted."""

    REPOSITORY = "repository"
    ORGANISATION = "organisation"
    MISSING = "missing"
    OUTDATED = "outdated"
    """The source has it from later than the target."""
    FOREIGN = "foreign"
    """We had it exported, and somebody else wrote it since."""

    @property
    def is_present(self) -> bool:
        return self in (State.REPOSITORY, State.ORGANISATION)


def judge(
    wanted: Mapping[str, str], found: Found, *, owned: Mapping[str, str] | None = None, org_fallback: bool
) -> dict[str, State]:
    """What is the matter with each name: the target's own secret first, the organisation's as a fallback.

    `wanted`: by name in the target the name in the source. `owned`: by name the time that was seen after our
    own export.
    """
    return {name: _judged(name, key, found, owned or {}, org_fallback) for name, key in wanted.items()}


def _judged(name: str, key: str, found: Found, owned: Mapping[str, str], org_fallback: bool) -> State:
    there = found.own.get(name)
    if there is None:
        return State.ORGANISATION if org_fallback and name in found.inherited else State.MISSING
    if found.offered is not None and found.offered.get(key, "") > there:
        return State.OUTDATED
    return State.FOREIGN if owned.get(name, there) != there else State.REPOSITORY


def due(states: Mapping[str, State], groups: Iterable[Collection[str]] = ()) -> tuple[str, ...]:
    """The names to export: those that are not in order, and with one of a group all of it."""
    lacking = {name for name, state in states.items() if not state.is_present}
    for group in groups:
        if lacking & set(group):
            lacking |= {name for name in group if name in states}
    return tuple(name for name in states if name in lacking)


def told(states: Mapping[str, State], source: str) -> str:
    """What is the matter, in words and by name; empty where nothing is."""
    phrases = {
        State.MISSING: "missing",
        State.OUTDATED: f"newer in {source}",
        State.FOREIGN: "changed by somebody else",
    }
    parts = []
    for state, phrase in phrases.items():
        if names := [name for name, each in states.items() if each is state]:
            parts.append(f"{', '.join(names)} {phrase}")
    return ", ".join(parts)


def payloads(route: Route, wanted: Mapping[str, str], names: Sequence[str]) -> list[dict[str, Any]]:
    """The requests for these names: one, but for names that are of one key, and for more than a batch has."""
    batches: list[dict[str, str]] = []
    for name in names:
        key = wanted[name]
        room = (batch for batch in batches if key not in batch and len(batch) < MAX_BATCH)
        batch = next(room, None)
        if batch is None:
            batches.append(batch := {})
        batch[key] = name
    return [_payload(route, batch) for batch in batches]


def _payload(route: Route, batch: Mapping[str, str]) -> dict[str, Any]:
    keys = list(batch)
    # A single name goes in the form that every workflow of this kind understands.
    payload: dict[str, Any] = {"secret_name": keys[0]} if len(keys) == 1 else {"secret_names": keys}
    payload["target_repo"] = route.target.repo
    if isinstance(route.target, EnvironmentScope):
        payload["target_environment"] = route.target.environment
    if renamed := {key: name for key, name in batch.items() if key != name}:
        payload["target_names"] = renamed
    if route.source_environment is not None:
        payload["source_environment"] = route.source_environment
    return payload
