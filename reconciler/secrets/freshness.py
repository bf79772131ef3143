"""How fresh what a source serves is, for status files and for people. Names and times, never values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SourceState(StrEnum):
    """What the last question to a source led to."""

    UNUSED = "Unused"
    """Nobody has asked yet."""
    FRESH = "Fresh"
    CACHED = "Cached"
    """Fetched within `cache_ttl`."""
    STALE = "Stale"
    """The source is down; an old value serves, for `max_stale` at most."""
    FALLBACK = "Fallback"
    """The source does not serve, or is not enabled; one of its fallbacks does."""
    FAILED = "Failed"
    """Nothing serves."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """One source as of its last use; where environments differ, as of the one where it does worst."""

    source: str
    kind: str
    state: SourceState
    retrieved_at: datetime | None = None
    """When what serves now was fetched, UTC."""
    keys: tuple[str, ...] = ()
    served_by: str | None = None
    """The source that served: this one, a fallback, or None."""
    reason: str | None = None
    """A reason for status files, where this source itself failed."""
    error: str | None = None
    """Why, in one line."""
    enabled: bool = True
    """False where the spec or a setting switches it off."""
    last_success: datetime | None = None
    """When this source itself last answered with values, UTC; known also while it fails."""
    error_kind: str | None = None
    """One stable word for why this source itself does not serve: `Down` (an outage), `Refused`, or the reason
    of another error, such as `SettingsInvalid`."""


_FROM_WORST = (
    SourceState.FAILED,
    SourceState.FALLBACK,
    SourceState.STALE,
    SourceState.CACHED,
    SourceState.FRESH,
)


def goodness(freshness: Freshness) -> int:
    return _FROM_WORST.index(freshness.state)
