"""Tasks, events and secret sources on the page. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.identity import is_installation
from reconciler.progress import STILL, in_words, share_of, size
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
    from reconciler.progress import Progress

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

_STILL = Badge("stands still", Tone.WAIT)

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
    done, total = _share(progress) if progress is not None else (0, 0)
    return TaskView(
        id=record.id,
        resource=record.resource,
        node=record.node,
        badge=_TASKS.get(record.state, Badge(record.state, Tone.IDLE)),
        created=_whole(record.created_at),
        attempts=tuple(_attempt(each) for each in reversed(record.attempts)),
        done=done,
        total=total,
        progress=_progress(progress) if progress is not None else "",
        still=_STILL if progress is not None and progress.still_seconds >= STILL else None,
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


def _share(progress: "Progress") -> tuple[int, int]:
    """As the agent says, or by what was sent where it does not."""
    if progress.phase:
        return share_of(progress)
    return min(progress.sent_bytes, progress.total_bytes), progress.total_bytes


def _progress(progress: "Progress") -> str:
    """What stands still is told in whole minutes, so that not each second makes another page."""
    if progress.phase:
        told = in_words(replace(progress, still_seconds=0))
    else:
        told = f"{size(progress.sent_bytes)} sent, of {size(progress.total_bytes)} at most"
    if progress.still_seconds < STILL:
        return told
    minutes = progress.still_seconds // 60
    return f"{told}, no progress for {f'{minutes} min' if minutes else f'{STILL} s'}"


def _whole(text: str) -> str:
    """The journal's times, without their fraction of a second."""
    return f"{text[:19]}Z" if len(text) > 19 else text
