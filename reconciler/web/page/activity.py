"""Tasks, events and secret sources on the page. Pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.identity import is_installation
from reconciler.secret_uses import uses_of
from reconciler.secrets.freshness import Freshness
from reconciler.secrets_report import state_word
from reconciler.spec.model import SecretSource
from reconciler.status.conditions import ConditionType, find_condition
from reconciler.status.documents import SourceStatus
from reconciler.web.page.facts import Facts
from reconciler.web.page.model import (
    AttemptView,
    Badge,
    EventView,
    ServedView,
    SourceView,
    TaskView,
    Tone,
    stamp,
)

if TYPE_CHECKING:
    from reconciler.journal_records import AttemptRecord, EventRecord, TaskRecord
    from reconciler.running import Progress

MAX_KEYS = 60
"""Names of one source that are listed."""

MAX_LOG = 4000
"""Characters of what one attempt printed, from its end; `trueup logs` has more."""

_TASKS = {
    "PENDING": Badge("pending", Tone.WAIT),
    "RUNNING": Badge("running", Tone.BUSY),
    "RETRYING": Badge("retrying", Tone.WAIT),
    "SUCCESS": Badge("success", Tone.GOOD),
    "FAILED": Badge("failed", Tone.BAD),
}

_EVENTS = {
    "failed": Tone.BAD,
    "degraded": Tone.BAD,
    "recovered": Tone.GOOD,
    "paired": Tone.GOOD,
    "awaiting_approval": Tone.WAIT,
}

_SOURCES = {
    "fresh": Tone.GOOD,
    "cached": Tone.GOOD,
    "stale": Tone.WAIT,
    "fallback": Tone.WAIT,
    "failed": Tone.BAD,
}


def tasks(records: "Sequence[TaskRecord]", progress: "Mapping[str, Progress]") -> tuple[TaskView, ...]:
    return tuple(_task(record, progress.get(record.id)) for record in records)


def _task(record: "TaskRecord", progress: "Progress | None") -> TaskView:
    return TaskView(
        id=record.id,
        resource=record.resource,
        node=record.node,
        badge=_TASKS.get(record.state, Badge(record.state, Tone.IDLE)),
        created=_whole(record.created_at),
        attempts=tuple(_attempt(each) for each in reversed(record.attempts)),
        done=min(progress.sent_bytes, progress.total_bytes) if progress is not None else 0,
        total=progress.total_bytes if progress is not None else 0,
        progress=_progress(progress) if progress is not None else "",
        can_retry=record.state == "FAILED" and not is_installation(record.resource),
    )


def _attempt(record: "AttemptRecord") -> AttemptView:
    state = record.state if record.ended_at else "RUNNING"
    return AttemptView(
        number=record.number,
        badge=_TASKS.get(state, Badge(state, Tone.IDLE)),
        began=_whole(record.began_at),
        ended=_whole(record.ended_at),
        reason=record.reason,
        message=record.message,
        log=record.log if len(record.log) <= MAX_LOG else f"…{record.log[-MAX_LOG:]}",
    )


def events(records: "Sequence[EventRecord]") -> tuple[EventView, ...]:
    return tuple(
        EventView(
            at=_whole(record.at),
            badge=Badge(record.kind.replace("_", " "), _EVENTS.get(record.kind, Tone.IDLE)),
            resource=record.resource,
            reason=record.reason,
            message=record.message,
        )
        for record in records
    )


def sources(facts: Facts) -> tuple[SourceView, ...]:
    """Names, states and ages: never values."""
    used: dict[str, set[str]] = {}
    for use in uses_of(facts.spec) if facts.spec is not None else ():
        used.setdefault(use.source, set()).add(use.resource)
    return tuple(
        SourceView(
            name=name,
            kind=source.kind,
            enabled=source.enabled,
            served=_served(facts, source),
            used_by=len(used.get(name, ())),
            fallback=source.fallback,
        )
        for name, source in facts.sources.items()
    )


def _served(facts: Facts, source: SecretSource) -> tuple[ServedView, ...]:
    asked = [
        (environment, found)
        for (name, environment), found in sorted(facts.freshness.items())
        if name == source.name
    ]
    if asked:
        return tuple(_looked(environment, found) for environment, found in asked)
    if not source.enabled:
        return (ServedView("", Badge("disabled", Tone.IDLE), ()),)
    recorded = facts.recorded.sources.get(f"secrets/{source.name}")
    return (_recorded(recorded) if recorded is not None else ServedView("", Badge("unused", Tone.IDLE), ()),)


def _looked(environment: str, found: Freshness) -> ServedView:
    word = state_word(found)
    return ServedView(
        environment=environment,
        badge=Badge(word, _SOURCES.get(word, Tone.IDLE)),
        keys=found.keys[:MAX_KEYS],
        retrieved=stamp(found.retrieved_at),
        served_by=found.served_by if found.served_by not in (None, found.source) else "",
        error=found.error or "",
    )


def _recorded(status: SourceStatus) -> ServedView:
    ready = find_condition(status.conditions, ConditionType.READY)
    return ServedView(
        environment="",
        badge=Badge(status.state, _SOURCES.get(status.state, Tone.IDLE)),
        keys=status.keys[:MAX_KEYS],
        retrieved=stamp(status.last_success),
        error=ready.message if ready is not None and ready.status != "True" else "",
    )


def _progress(progress: "Progress") -> str:
    return f"{_size(progress.sent_bytes)} sent, of {_size(progress.total_bytes)} at most"


def _size(count: int) -> str:
    """Bytes in words."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.1f} {units[0]}"


def _whole(text: str) -> str:
    """The journal's times, without their fraction of a second."""
    return f"{text[:19]}Z" if len(text) > 19 else text
