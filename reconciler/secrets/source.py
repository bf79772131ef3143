"""What a secret source is. A new kind is one file with a class like this and one line in `kinds.py`."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar, cast

import trio

from reconciler.errors import NotYetImplemented
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.values import Secret
from reconciler.spec.model import SecretSource

T = TypeVar("T")

MAX_PARALLEL_CALLS = 8
"""Blocking calls to sources that one store makes at the same time."""


class Source(Protocol):
    """One source of the spec. It fetches; caching, fallbacks and provenance are the store's."""

    def cache_key(self, environment: str, /) -> Hashable:
        """What decides the answer of `fetch`: sources with equal keys share one call and one cache entry."""

    async def fetch(self, environment: str, /) -> Mapping[str, Secret]:
        """All keys with their values, now. `environment` is the spec's name for it.

        Raises SourceDown where the source could not be asked or its answer proves nothing, SourceRefused
        where it will not serve, SettingsError for its credentials, NotYetImplemented. No error, nor
        anything it is chained to, holds a value.
        """


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """Seconds."""

    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of an answer."""
    total: float = 60.0
    """For one fetch, logins included."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources get from outside. Ages are measured with `trio.current_time`."""

    credentials: Credentials
    timeouts: HttpTimeouts = HttpTimeouts()
    utc_now: Callable[[], datetime] = _utc_now
    """Only for `retrieved_at`: the wall clock may jump."""
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_PARALLEL_CALLS))
    _shared: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "SourceContext":
        """With all defaults; `environ` is the primary's own environment."""
        return cls(Credentials(environ))

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one object of this kind for all sources of a store, such as a login that several use."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])


class UnsupportedSource:
    """A valid kind that this version cannot read yet."""

    def __init__(self, source: SecretSource, _context: SourceContext) -> None:
        self._source = source

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._source.settings

    async def fetch(self, _environment: str, /) -> Mapping[str, Secret]:
        raise NotYetImplemented(
            f"secret source {self._source.name}: kind {self._source.kind} is not built yet",
            hint="use infisical, env_file or environ",
        )
