"""Secrets of one environment of Infisical for a program without trio: any thread may ask, and waits.

A read within the ttl is answered where it is made, out of an immutable answer. Everything else happens in
a thread with a trio loop, where a SecretStore works as it does in a pass of trueup: the same source, cache,
login and rules for what may serve in an outage.
"""

import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from reconciler.errors import SecretSourceUnavailable, TrueupError
from reconciler.secrets import values
from reconciler.secrets.client.config import MAX_TTL, SLUGS, InfisicalConfig
from reconciler.secrets.client.errors import InfisicalConnectionError, SecretNotFoundError
from reconciler.secrets.client.loop import LoopClosed, LoopElsewhere, LoopThread
from reconciler.secrets.client.model import CLIENT_MOVES, ClientState, SecretCache, SecretValue
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.merge import KEY
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import Secret
from reconciler.settings import process_environ
from reconciler.spec.secret_model import EnvCredential, InfisicalSettings, SecretSource

log = logging.getLogger(__name__)

SOURCE = "infisical"
"""The name of the one source, in logs and as the `origin` of values."""

_GRACE = 10.0
"""Seconds."""

_ID, _SECRET = "INFISICAL_CLIENT_ID", "INFISICAL_CLIENT_SECRET"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What reads are answered with while it is young enough: the answer, and its values as cached ones."""

    cache: SecretCache
    values: Mapping[str, SecretValue] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking. Without values nothing serves."""

    values: Mapping[str, SecretValue] | None = field(repr=False)
    problem: str | None = None
    """Why Infisical itself did not serve, where it did not."""
    retry_after: float | None = None


class InfisicalClient:
    """Made, it logs in, in the background; the first read waits for that. Close it, or use `with`.

    `environ` serves where Infisical cannot, and alone where it is not enabled: the variables of the process
    if none is given. `timeouts` bound each question to Infisical, 60 s in all by default.
    """

    def __init__(
        self,
        config: InfisicalConfig,
        *,
        environ: Mapping[str, str] | None = None,
        timeouts: HttpTimeouts | None = None,
    ) -> None:
        self._config = config
        self._environ = process_environ() if environ is None else environ
        self._slug = config.environment_slug if config.environment_slug in SLUGS else SLUGS[0]
        self._snapshot = _Snapshot(SecretCache(ttl_seconds=config.cache_ttl if config.enabled else 0))
        self._state = ClientState.UNINITIALIZED
        self._said: object = None
        self._warned = False
        self._say = threading.Lock()
        self._loop: LoopThread | None = None
        self._finalizer = None
        if not config.enabled:
            return
        timeouts = timeouts or HttpTimeouts()
        # A call that must be newer waits for the end of one that is under way. Both end by themselves: this
        # is for the case that they do not.
        self._deadline = 2 * timeouts.total + _GRACE
        spec, context = _source(config, timeouts)
        self._source = InfisicalSource(spec, context)  # shares its login with the store's own
        self._store = SecretStore({SOURCE: spec}, context=context)
        self._seen: tuple[object, Mapping[str, SecretValue]] = (None, {})
        self._loop = LoopThread("trueup-infisical-client")
        self._finalizer = weakref.finalize(self, self._loop.close)
        self._move(ClientState.AUTHENTICATING)
        self._loop.start(_log_in, weakref.ref(self), self._source, self._slug)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and forget all values; calls that wait get InfisicalConnectionError.

        Closing twice is fine.
        """
        if self._finalizer is not None:
            self._finalizer()
            self._snapshot = _Snapshot(SecretCache(ttl_seconds=self._config.cache_ttl))
            self._seen = (None, {})
            self._store.clear_cache()

    def __repr__(self) -> str:
        return f"InfisicalClient({self._config!r}, state={self._state.value})"

    @property
    def state(self) -> ClientState:
        return self._state

    @property
    def cache(self) -> SecretCache:
        """The last answer of Infisical."""
        return self._snapshot.cache

    def get_secret(
        self, secret_name: str, *, ttl: float | None = None, force_refresh: bool = False
    ) -> SecretValue:
        """One secret: from memory within `ttl` (`cache_ttl` of the configuration where not given), else asked
        for; if that fails an old value, else the variable of the same name.

        `force_refresh` asks Infisical however young the answer in memory is. Raises SecretNotFoundError
        where Infisical has no such secret, InfisicalConnectionError where nothing serves, ValueError for a
        `ttl` that is not 0 to 3600 seconds.
        """
        found = self._young(ttl, force_refresh)
        if found is None:
            if self._loop is None:
                return self._own(secret_name, is_fallback=False)
            answer = self._ask(ttl, force_refresh)
            if answer.values is None:
                return self._fallback(secret_name, answer)
            found = answer.values
        value = found.get(secret_name)
        if value is None:
            raise _not_found(secret_name)
        return value

    def get_all_secrets(
        self, *, ttl: float | None = None, force_refresh: bool = False
    ) -> dict[str, SecretValue]:
        """All secrets by name, as `get_secret` gives each. The dict is the caller's own.

        In an outage without an old answer it raises InfisicalConnectionError: which variables of the
        environment would stand for secrets, nobody can tell. Where Infisical is not enabled, it gives all
        variables with names and values that a secret may have.
        """
        found = self._young(ttl, force_refresh)
        if found is not None:
            return dict(found)
        if self._loop is None:
            return {
                name: self._own(name, is_fallback=False)
                for name, value in self._environ.items()
                if value and KEY.fullmatch(name)
            }
        answer = self._ask(ttl, force_refresh)
        if answer.values is None:
            raise _unavailable(answer)
        return dict(answer.values)

    def refresh_cache(self) -> None:
        """Ask Infisical now. Raises InfisicalConnectionError if it does not serve, though an old one may.

        Does nothing where Infisical is not enabled.
        """
        if self._loop is not None:
            answer = self._ask(None, force=True)
            if answer.problem is not None:
                raise _unavailable(answer)

    def is_connected(self) -> bool:
        """Whether Infisical serves: it is asked, save for a while after it failed. Never raises."""
        if self._loop is None:
            return False
        try:
            return self._ask(0, force=False).problem is None
        except Exception:
            return False

    # --- in the caller's thread ----------------------------------------------------------------

    def _young(self, ttl: float | None, force_refresh: bool) -> Mapping[str, SecretValue] | None:
        """The answer in memory where it is young enough: no lock, no other thread."""
        snapshot = self._snapshot
        if ttl is None:
            ttl = snapshot.cache.ttl_seconds
        elif not 0 <= ttl <= MAX_TTL:
            raise ValueError(f"a ttl of {ttl} s is not accepted; give 0 to {MAX_TTL} seconds")
        if force_refresh or ttl == 0 or snapshot.cache.age > ttl:
            return None
        if self._said is not snapshot:
            self._say_cached(snapshot)
        return snapshot.values

    def _say_cached(self, snapshot: _Snapshot) -> None:
        with self._say:
            if self._said is not snapshot:
                self._said = snapshot
                log.info("[Infisical] Using cached secrets: source %s", SOURCE)

    def _ask(self, ttl: float | None, force: bool) -> _Answer:
        assert self._loop is not None
        try:
            return self._loop.call(self._deadline, self._fetch, ttl, force)
        except LoopClosed:
            problem = "this InfisicalClient is closed"
        except LoopElsewhere:
            problem = "this InfisicalClient was made before a fork, which takes no thread along; make another"
        except TimeoutError:
            problem = f"no answer within {self._deadline:g} s"
        raise InfisicalConnectionError(problem)

    def _fallback(self, name: str, answer: _Answer) -> SecretValue:
        if not self._environ.get(name):
            raise _unavailable(answer, f", and the environment has no {name}")
        value = self._own(name, is_fallback=True)
        with self._say:
            if not self._warned:
                self._warned = True
                log.warning("[Infisical] Infisical unavailable, using .env fallback: %s", answer.problem)
        return value

    def _own(self, name: str, *, is_fallback: bool) -> SecretValue:
        """A variable of the environment, as a secret."""
        # Nothing in plain text stands in this frame when an error goes through it.
        if not KEY.fullmatch(name) or not self._environ.get(name):
            raise _not_found(name)
        return SecretValue(
            key=name,
            value=Secret(self._environ[name]),
            environment=self._slug,
            source="env_file",
            origin="environ",
            is_cached=False,
            retrieved_at=datetime.now(UTC),
            is_fallback=is_fallback,
        )

    # --- in the loop ---------------------------------------------------------------------------

    async def _fetch(self, ttl: float | None, force: bool) -> _Answer:
        """Through the store. Failures are data: an error would take frames of the loop into the caller's."""
        try:
            found = await self._store.values(SOURCE, self._slug, force=force, ttl=ttl)
        except SecretSourceUnavailable as error:
            self._lost()
            retry_after = error.retry_after if isinstance(error, SourceDown | SourceRefused) else None
            return _Answer(None, str(error), retry_after)
        if self._seen[0] is not found:
            self._seen = (found, _usable(found))
        usable = self._seen[1]
        some = next(iter(found.values()))  # an answer of Infisical is never empty
        if some.is_stale:
            self._lost()
            return _Answer(usable, self._store.freshness()[SOURCE].error)
        if not some.is_cached:
            self._keep(usable, some.retrieved_at)
        return _Answer(usable)

    def _keep(self, usable: Mapping[str, SecretValue], at: datetime) -> None:
        if at == self._snapshot.cache.last_updated:
            return  # another reader of the same call
        cached = {name: replace(value, source="cache", is_cached=True) for name, value in usable.items()}
        cache = self._snapshot.cache.updated({name: value.value for name, value in usable.items()}, at)
        self._snapshot = _Snapshot(cache, cached)
        self._warned = False
        if self._state is not ClientState.READY:
            self.logged_in()
            self._move(ClientState.READY)

    def logged_in(self) -> None:
        if self._state is not ClientState.AUTHENTICATED:
            self._move(ClientState.AUTHENTICATED)

    def _lost(self) -> None:
        if self._state is not ClientState.DISCONNECTED:
            self._move(ClientState.DISCONNECTED)

    def _move(self, state: ClientState) -> None:
        assert state in CLIENT_MOVES[self._state], f"{self._state} -> {state}"
        self._state = state


async def _log_in(client: "weakref.ref[InfisicalClient]", source: InfisicalSource, slug: str) -> None:
    """The login that begins when a client is made. Its failure is told by the read that needs it."""
    try:
        await source.log_in(slug)
        succeeded = True
    except TrueupError:
        succeeded = False
    if (found := client()) is not None and found.state is ClientState.AUTHENTICATING:
        found.logged_in() if succeeded else found._lost()


def _source(config: InfisicalConfig, timeouts: HttpTimeouts) -> tuple[SecretSource, SourceContext]:
    assert config.project_id and config.environment_slug and config.client_id and config.client_secret
    spec = SecretSource(
        name=SOURCE,
        kind="infisical",
        cache_ttl=float(config.cache_ttl),
        settings=InfisicalSettings(
            host=config.host,
            project_id=config.project_id,
            environment_slug=config.environment_slug,
            client_id=EnvCredential(name=_ID),
            client_secret=EnvCredential(name=_SECRET),
        ),
    )
    credentials = Credentials({_ID: config.client_id, _SECRET: config.client_secret.reveal()})
    return spec, SourceContext(credentials, timeouts=timeouts)


def _usable(found: Mapping[str, values.SecretValue]) -> dict[str, SecretValue]:
    """Those within the client's rules: of any other name, or empty, a value counts as none."""
    return {
        name: SecretValue(
            **{each.name: getattr(value, each.name) for each in fields(value)},
        )
        for name, value in found.items()
        if KEY.fullmatch(name) and value.value.reveal()
    }


def _not_found(name: str) -> SecretNotFoundError:
    if KEY.fullmatch(name):
        return SecretNotFoundError(name)
    return SecretNotFoundError(name, hint=f"names are of the form {KEY.pattern}")


def _unavailable(answer: _Answer, more: str = "") -> InfisicalConnectionError:
    return InfisicalConnectionError(
        f"Infisical is unavailable{more}: {answer.problem}", retry_after=answer.retry_after
    )
