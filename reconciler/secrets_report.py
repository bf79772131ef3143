"""The document that `trueup secrets list` prints: names, provenance, ages and states, never values. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from reconciler.secret_uses import Use
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.spec.model import SecretSource
from reconciler.status.conditions import ConditionType, find_condition, whole_second
from reconciler.status.documents import SourceStatus

Answer = dict[str, Any]
"""One document of JSON."""


def sources_document(
    sources: Mapping[str, SecretSource],
    uses: Iterable[Use],
    found: Mapping[tuple[str, str], Freshness],
    now: datetime,
) -> Answer:
    """Each source with what it serves in each environment that asked it: `found`, by source and environment.

    `sources` are as the settings leave them: one that these switch off is not enabled.
    """
    given = list(uses)
    return {
        "version": 1,
        "recorded": False,
        "sources": [
            {
                **_source(source, given),
                "environments": [
                    _looked(environment, freshness, now)
                    for (of, environment), freshness in sorted(found.items())
                    if of == name
                ]
                or [_unused(source)],
            }
            for name, source in sources.items()
        ],
    }


def recorded_document(
    sources: Mapping[str, SecretSource], uses: Iterable[Use], recorded: Mapping[str, SourceStatus]
) -> Answer:
    """The same out of the status files alone, by the id of a source; they know no environments apart."""
    given = list(uses)
    return {
        "version": 1,
        "recorded": True,
        "sources": [
            {
                **_source(source, given),
                "environments": [
                    _recorded(recorded[f"secrets/{name}"])
                    if f"secrets/{name}" in recorded
                    else _unused(source)
                ],
            }
            for name, source in sources.items()
        ],
    }


def _source(source: SecretSource, uses: Iterable[Use]) -> Answer:
    return {
        "name": source.name,
        "kind": source.kind,
        "enabled": source.enabled,
        "fallback": list(source.fallback),
        "usedBy": [
            {
                "resource": use.resource,
                "environment": use.environment,
                "for": use.purpose.value,
                "file": use.file,
                "keys": list(use.keys),
            }
            for use in uses
            if use.source == source.name
        ],
    }


def _looked(environment: str, freshness: Freshness, now: datetime) -> Answer:
    since = freshness.retrieved_at
    return {
        "environment": environment,
        "state": state_word(freshness),
        "servedBy": freshness.served_by or "",
        "keys": list(freshness.keys),
        "retrievedAt": _text(since),
        "ageSeconds": None if since is None else max(0, round((now - since).total_seconds())),
        "lastSuccess": _text(freshness.last_success),
        "errorKind": freshness.error_kind or "",
        "error": freshness.error or "",
    }


def _recorded(status: SourceStatus) -> Answer:
    ready = find_condition(status.conditions, ConditionType.READY)
    return {
        "environment": "",
        "state": status.state,
        "servedBy": "",
        "keys": list(status.keys),
        "retrievedAt": None,
        "ageSeconds": None,
        "lastSuccess": _text(status.last_success),
        "errorKind": status.error_kind,
        "error": ready.message if ready is not None and ready.status != "True" else "",
    }


def _unused(source: SecretSource) -> Answer:
    return {
        "environment": "",
        "state": "unused" if source.enabled else "disabled",
        "servedBy": "",
        "keys": [],
        "retrievedAt": None,
        "ageSeconds": None,
        "lastSuccess": None,
        "errorKind": "",
        "error": "",
    }


def state_word(freshness: Freshness) -> str:
    """One word for people and scripts; what is switched off on purpose has not failed."""
    if not freshness.enabled and freshness.state in (SourceState.FALLBACK, SourceState.FAILED):
        return "disabled"
    return freshness.state.value.lower()


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else whole_second(moment).isoformat().replace("+00:00", "Z")
