"""What the page shows, as plain data that its templates only print. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from reconciler.status.conditions import (
    WAITS,
    Conditions,
    ConditionType,
    Reason,
    find_condition,
)
from reconciler.status.revisions import split_revision


class Tone(StrEnum):
    """How a badge is coloured; its text says the same in a word."""

    GOOD = "good"
    BUSY = "busy"
    WAIT = "wait"
    BAD = "bad"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class State:
    """How a resource is: a badge, the stable reason, and the message in words."""

    badge: Badge
    reason: str = ""
    message: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Waits:
    """A release that something keeps back. `tag` is what can be approved."""

    reason: str
    message: str
    tag: str = ""
    commit: str = ""
    approvable: bool = False


@dataclass(frozen=True, slots=True)
class UnitView:
    name: str
    tag: str = ""
    commit: str = ""
    since: str = ""
    by: str = ""
    outcome: Badge | None = None
    reason: str = ""
    asked: str = ""
    """What somebody asked for and no pass has acted on yet."""
    refused: str = ""
    waits: tuple[Waits, ...] = ()
    held: str = ""
    """Why it stays at its release; empty: nothing holds it."""
    earlier: tuple[str, ...] = ()
    """Tags it can go back to, the newest first."""
    promotable: tuple[str, ...] = ()
    """Tags of the environment before it, the newest first."""


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    name: str
    state: State
    source: str = ""
    """The environment that it is promoted from."""
    policy: str = ""
    units: tuple[UnitView, ...] = ()
    held: str = ""
    holdable: bool = True
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class ServiceView:
    id: str
    name: str
    environment: str
    state: State
    healthy: Badge | None = None
    deploy: str = ""
    revision: str = ""
    commit: str = ""
    hash: str = ""
    changed: str = ""
    outcome: str = ""
    why: str = ""
    """The reason of the last step that was planned for it."""
    suspended: bool = False
    """By a decision, which can be ended here."""


@dataclass(frozen=True, slots=True)
class ServiceGroup:
    environment: str
    services: tuple[ServiceView, ...]
    more: int = 0
    """Further ones, all in order, that are not listed."""


@dataclass(frozen=True, slots=True)
class KeptView:
    """A release that a target keeps. `name`: of its directory; `label`: what people call it."""

    name: str
    label: str
    at: str = ""
    current: bool = False


@dataclass(frozen=True, slots=True)
class TargetView:
    """A project at one path on one node."""

    id: str
    node: str
    project: str
    path: str
    state: State
    revision: str = ""
    changed: str = ""
    drift: str = ""
    counts: str = ""
    releases: tuple[KeptView, ...] = ()
    """Newest first."""
    returned: str = ""
    """By whom, when and why it was switched back to one of them."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """A target that is not as trueup left it."""

    project: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    title: str
    labels: tuple[str, ...]
    state: State
    connected: bool
    paired: bool
    unpinned: bool = False
    fingerprint: str = ""
    paired_at: str = ""
    version: str = ""
    last_sync: str = ""
    drift: tuple["DriftView", ...] = ()
    revoked: bool = False
    in_spec: bool = True
    targets: tuple[TargetView, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectView:
    id: str
    name: str
    title: str
    scope: str
    environment: str
    """Empty: it follows a branch, or a directory."""
    source: str
    state: State
    enabled: bool
    suspended: bool = False
    """By a decision, which can be ended here."""
    targets: tuple[TargetView, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptView:
    number: int
    badge: Badge
    began: str
    ended: str
    reason: str
    message: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class TaskView:
    id: str
    resource: str
    node: str
    badge: Badge
    created: str
    attempts: tuple[AttemptView, ...] = ()
    done: int = 0
    total: int = 0
    """Of what `unit` counts; 0: nobody knows."""
    progress: str = ""
    still: Badge | None = None
    can_retry: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseView:
    at: str
    environment: str
    unit: str
    tag: str
    kind: str
    commits: str
    by: str
    outcome: Badge
    reason: str
    current: bool


@dataclass(frozen=True, slots=True)
class EventView:
    at: str
    badge: Badge
    resource: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ServedView:
    """What a source serves in one environment."""

    environment: str
    badge: Badge
    keys: tuple[str, ...]
    retrieved: str = ""
    served_by: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class SourceView:
    name: str
    kind: str
    enabled: bool
    served: tuple[ServedView, ...]
    used_by: int = 0
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something that a new user still has to do, with the command that does it."""

    title: str
    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Todo:
    """Something that waits for a person. `section`: where it is; `service`: the id of the one it is about."""

    text: str
    section: str
    tone: Tone
    service: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    headline: Badge
    ready: int = 0
    waiting: int = 0
    failing: int = 0
    last_pass: str = ""
    error: str = ""
    """Why the last pass could not be made."""
    spec: str = ""
    """The commit of the spec that counts."""
    branch: str = ""
    frozen: str = ""
    problems: tuple[str, ...] = ()
    steps: tuple[NextStep, ...] = ()
    todos: tuple[Todo, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    overview: Overview
    environments: tuple[EnvironmentView, ...] = ()
    services: tuple[ServiceGroup, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    projects: tuple[ProjectView, ...] = ()
    tasks: tuple[TaskView, ...] = ()
    history: tuple[ReleaseView, ...] = ()
    events: tuple[EventView, ...] = ()
    sources: tuple[SourceView, ...] = field(default=())


def stamp(moment: datetime | None) -> str:
    """A time as a page's `<time>` has it; empty for none."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def state_of(conditions: Conditions, *, nothing: str = "not seen yet") -> State:
    """What `Ready` says; a resource that waits for somebody has not failed."""
    ready = find_condition(conditions, ConditionType.READY)
    if ready is None:
        return State(Badge(nothing, Tone.IDLE))
    if ready.status == "True":
        badge = Badge("ready", Tone.GOOD)
    elif ready.reason in WAITS:
        badge = Badge("waiting", Tone.WAIT)
    elif ready.status == "Unknown":
        badge = Badge("unknown", Tone.WAIT)
    else:
        badge = Badge("failing", Tone.BAD)
    shown = "" if ready.reason == Reason.RECONCILIATION_SUCCEEDED else ready.reason
    return State(badge, shown, ready.message, stamp(ready.last_transition_time))


def healthy_of(conditions: Conditions) -> Badge | None:
    """A badge where a health check says something: what was deployed as asked may still be ill."""
    found = find_condition(conditions, ConditionType.HEALTHY)
    if found is None:
        return None
    words = {"True": Badge("healthy", Tone.GOOD), "False": Badge("not healthy", Tone.BAD)}
    return words.get(found.status, Badge("health unknown", Tone.WAIT))


SHORT: Final = 10
"""Characters of a commit's id that are shown."""


def short(commit: str) -> str:
    return commit[:SHORT]


def revision_of(text: str) -> tuple[str, str]:
    """Ref and short commit of `v1.0.1@sha1:…`; of a directory `dir` and its short digest."""
    ref, commit = split_revision(text)
    return ref, short(commit)
