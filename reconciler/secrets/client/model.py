"""What the client hands over and what it keeps, with the states of both and the ways between them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from reconciler.secrets import values
from reconciler.secrets.client.config import DEFAULT_TTL, MAX_TTL, SLUGS
from reconciler.secrets.merge import KEY
from reconciler.secrets.values import Secret

SOURCES: Final = ("infisical", "cache", "env_file")


class ClientState(StrEnum):
    UNINITIALIZED = "Uninitialized"
    """Not enabled: it stays so. Otherwise only for a moment, while the client is made."""
    AUTHENTICATING = "Authenticating"
    AUTHENTICATED = "Authenticated"
    READY = "Ready"
    """The last question to Infisical was answered."""
    DISCONNECTED = "Disconnected"
    """The last one was not; what serves is old, or from the environment."""


CLIENT_MOVES: Final[Mapping[ClientState, frozenset[ClientState]]] = {
    ClientState.UNINITIALIZED: frozenset({ClientState.AUTHENTICATING}),
    ClientState.AUTHENTICATING: frozenset({ClientState.AUTHENTICATED, ClientState.DISCONNECTED}),
    ClientState.AUTHENTICATED: frozenset({ClientState.READY, ClientState.DISCONNECTED}),
    ClientState.READY: frozenset({ClientState.DISCONNECTED}),
    ClientState.DISCONNECTED: frozenset({ClientState.AUTHENTICATED}),
}
"""All legal moves. After an outage a good answer leads through Authenticated: some login stands."""


class CacheState(StrEnum):
    EMPTY = "Empty"
    POPULATED = "Populated"
    """It holds the first answer."""
    STALE = "Stale"
    """Its answer is older than the ttl."""
    REFRESHED = "Refreshed"
    """It holds a later answer."""


@dataclass(frozen=True, slots=True)
class SecretValue(values.SecretValue):
    """One secret with its provenance, within narrower rules than those of a spec's sources.

    The key is a variable's name in capitals, the value is not empty, the environment is dev, staging or
    prod, and `source` is `infisical` (fresh), `cache` or `env_file`. A value given as a plain text is held
    as a Secret: `value.reveal()` is the only way to the text.
    """

    def __post_init__(self) -> None:
        given: object = self.value
        if isinstance(given, str):
            object.__setattr__(self, "value", Secret(given))
        values.SecretValue.__post_init__(self)
        if not KEY.fullmatch(self.key):
            raise ValueError(f"{self.key!r} is no key of the form {KEY.pattern}")
        if not self.value.reveal():
            raise ValueError(f"the value of {self.key} is empty")
        if self.environment not in SLUGS:
            raise ValueError(f"{self.environment!r} is none of {', '.join(SLUGS)}")
        if self.source not in SOURCES:
            raise ValueError(f"{self.source!r} is none of {', '.join(SOURCES)}")


@dataclass(frozen=True, slots=True)
class SecretCache:
    """One whole answer of Infisical and how long it holds. Immutable: a newer answer is a new one.

    `last_updated` is in UTC, None while there is nothing. Ages are those of a clock that does not jump: the
    wall clock is read once, when this is made. Values given as plain texts are held as Secrets.
    """

    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    last_updated: datetime | None = None
    ttl_seconds: int = DEFAULT_TTL
    renewed: bool = False
    """It took the place of an older answer."""
    _since: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given: Mapping[str, object] = self.secrets
        held = {key: Secret(value) if isinstance(value, str) else value for key, value in given.items()}
        object.__setattr__(self, "secrets", held)
        if "" in held:
            raise ValueError("a key is empty")
        if not 0 <= self.ttl_seconds <= MAX_TTL:
            raise ValueError(f"ttl_seconds {self.ttl_seconds} is not 0 to {MAX_TTL}")
        since = float("-inf")
        if self.last_updated is not None:
            if self.last_updated.utcoffset() != timedelta(0):
                raise ValueError("last_updated is not in UTC")
            since = time.monotonic() - (datetime.now(UTC) - self.last_updated).total_seconds()
        object.__setattr__(self, "_since", since)

    @property
    def age(self) -> float:
        """Seconds since the answer; infinite while there is none."""
        return time.monotonic() - self._since

    def is_expired(self, now: datetime | None = None) -> bool:
        """Whether it is older than `ttl_seconds`; with 0 it always is. `now`: at that time instead."""
        if self.last_updated is None or self.ttl_seconds == 0:
            return True
        age = self.age if now is None else (now - self.last_updated).total_seconds()
        return age > self.ttl_seconds

    @property
    def state(self) -> CacheState:
        if self.last_updated is None:
            return CacheState.EMPTY
        if self.is_expired():
            return CacheState.STALE
        return CacheState.REFRESHED if self.renewed else CacheState.POPULATED

    def updated(self, secrets: Mapping[str, Secret], at: datetime) -> "SecretCache":
        """What comes after it, with a newer answer."""
        return SecretCache(secrets, at, self.ttl_seconds, renewed=self.last_updated is not None)
