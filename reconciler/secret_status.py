"""The status documents of secret sources after a pass. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.spec.model import Spec
from reconciler.status.conditions import ConditionStatus, ConditionType, Reason, set_condition, whole_second
from reconciler.status.documents import AnyDocument, Recorded, SourceStatus

_SOURCE_STATES: Mapping[
    SourceState, tuple[Literal["fresh", "stale", "fallback", "failed", "disabled"], ConditionStatus, str]
] = {
    SourceState.FRESH: ("fresh", "True", Reason.RECONCILIATION_SUCCEEDED),
    # Cached is fresh as far as people are concerned; telling them apart would cost a commit a pass.
    SourceState.CACHED: ("fresh", "True", Reason.RECONCILIATION_SUCCEEDED),
    SourceState.STALE: ("stale", "False", Reason.STALE_SECRETS),
    SourceState.FALLBACK: ("fallback", "False", Reason.FALLBACK_SECRETS),
    SourceState.FAILED: ("failed", "Unknown", Reason.SECRET_FETCH_FAILED),
}


def with_sources(
    recorded: Recorded,
    spec: Spec,
    sources: Mapping[str, Freshness],
    fingerprints: Mapping[str, Mapping[str, str]],
    now: datetime,
) -> list[AnyDocument]:
    """The sources that this pass asked; of the others nothing new is known.

    `fingerprints` has those that answered themselves: a stale or fallback value replaces no recorded one.
    """
    documents: list[AnyDocument] = []
    for name, freshness in sources.items():
        if freshness.state not in _SOURCE_STATES:
            continue
        id = f"secrets/{name}"
        old = recorded.sources.get(id) or SourceStatus(id=id)
        state, ready, reason = _SOURCE_STATES[freshness.state]
        message = freshness.error or ""
        keys = tuple(sorted(freshness.keys))
        if state == "failed":
            reason = freshness.reason or reason
            keys = old.keys  # the last ones known: could not look is not empty
        elif state == "fallback":
            message = f"{freshness.served_by} serves instead: {message}"
        if not freshness.enabled:
            # What is switched off on purpose has not failed; whoever needs it without a fallback has.
            state, ready, reason = "disabled", "False", Reason.SUSPENDED
        conditions = set_condition(
            old.conditions,
            ConditionType.READY,
            ready,
            reason,
            message,
            now=now,
        )
        documents.append(
            msgspec.structs.replace(
                old,
                source_kind=spec.secret_sources[name].kind,
                state=state,
                keys=keys,
                fingerprints=dict(fingerprints.get(name, old.fingerprints)),
                last_success=whole_second(freshness.last_success)
                if freshness.last_success is not None
                else old.last_success,
                error_kind=freshness.error_kind or "",
                conditions=conditions,
            )
        )
    return documents
