"""What a secret source is. A new kind is one file with a class like this and one line in `kinds.py`."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar, cast

import trio

from reconciler.errors import TrueupError
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.refused_logins import RefusedLogins
from reconciler.secrets.values import Secret, is_text
from reconciler.spec.model import Credential

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


class Versioned(Source, Protocol):
    """A source that can tell cheaply that its values may be others than before. Having this is optional."""

    async def version(self) -> Hashable | None:
        """What stands for the values now, such as a blob's id or a file's time and size.

        Asked before a list is taken from memory. Where it is another one than at the last call, neither the
        list nor a failure is taken from there, whatever `cache_ttl` says: who commits a change expects the
        next pass to have it. None, or a TrueupError: it cannot tell, and `cache_ttl` decides.
        """


async def version_of(source: Source) -> Hashable | None:
    """What a source says of itself; None where it does not, or cannot now: then its `fetch` tells why."""
    ask: Callable[[], Awaitable[Hashable | None]] | None = getattr(source, "version", None)
    try:
        return None if ask is None else await ask()
    except TrueupError:
        return None


class Identified(Source, Protocol):
    """A source behind a login. What it was told may be kept on disk, for the same login alone."""

    @property
    def identity(self) -> Sequence[Credential | None]:
        """The credentials that say who asks, in a fixed order."""


async def identity_of(
    source: Source, read: Callable[[Credential], Awaitable[Secret]]
) -> tuple[Secret, ...] | None:
    """The values of its credentials; None where one cannot be read (TrueupError), or it has none."""
    named: Sequence[Credential | None] = getattr(source, "identity", ())
    try:
        return tuple([Secret("") if each is None else await read(each) for each in named]) or None
    except TrueupError:
        return None


async def answer_of(source: Source, environment: str) -> Mapping[str, Secret]:
    """What `fetch` gives. Raises what it raises, and SourceRefused where a name or a value is no text: half a
    surrogate pair, which JSON can write and a variable of the process may stand for, has no UTF-8 form."""
    values = await source.fetch(environment)
    for name, value in values.items():
        if not is_text(name):
            raise SourceRefused(f"the name {name!r} is not valid text", hint="rename it in the source")
        if not is_text(value.reveal()):
            raise SourceRefused(
                f"the value of {name} is not valid text", hint="store it anew; binary data in base64"
            )
    return values


class RepositoryFiles(Protocol):
    """Files at the tips of the branches of the spec's repositories, by the repository's name there.

    Both reading methods raise what git raises, UnknownRevision where there is no such branch.
    """

    def identity(self, repository: str, /) -> Hashable:
        """What the name stands for; it belongs into the `cache_key` of whoever reads from there."""

    async def read(self, repository: str, path: str, /, *, max_size: int) -> bytes | None:
        """None: there is no such file."""

    async def version(self, repository: str, path: str, /) -> str:
        """Another one for another content, and empty where there is no such file."""


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
    files: RepositoryFiles | None = None
    """None where there are no repositories to read from."""
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_PARALLEL_CALLS))
    refused_logins: RefusedLogins | None = None
    """Those of other processes on this state directory; None: nobody else's are known."""
    lasting: dict[Hashable, object] = field(default_factory=dict, repr=False)
    """What outlives the store: see `outlasting`."""
    _shared: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str],
        files: RepositoryFiles | None = None,
        lasting: dict[Hashable, object] | None = None,
        refused_logins: RefusedLogins | None = None,
    ) -> "SourceContext":
        """With all defaults; `environ` is the primary's own environment."""
        return cls(
            Credentials(environ),
            files=files,
            refused_logins=refused_logins,
            lasting={} if lasting is None else lasting,
        )

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one object of this kind for all sources of a store, such as a login that several use."""
        return _known(self._shared, key, make)

    def outlasting(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one object of this kind for all stores of a process, such as what a host has refused."""
        return _known(self.lasting, key, make)


def _known(objects: dict[Hashable, object], key: Hashable, make: Callable[[], T]) -> T:
    if key not in objects:
        objects[key] = make()
    return cast(T, objects[key])
