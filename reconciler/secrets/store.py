"""The one place that secrets are read from: memory, the source, an old value, fallbacks, in this order."""

import logging
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import trio

from reconciler.errors import NotYetImplemented, SecretMissing, SettingsError, TrueupError
from reconciler.secrets.attempts import all_failed, no_such, refused
from reconciler.secrets.cache import CacheEntry, Failed, Fetched, Question, SecretCache
from reconciler.secrets.circular import needing_themselves
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import Freshness, SourceState, goodness
from reconciler.secrets.kinds import KEPT_ON_DISK, REGISTRY
from reconciler.secrets.refresh import OnChange, Refresher, nobody
from reconciler.secrets.source import Source, SourceContext, answer_of, identity_of, version_of
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.model import Credential, SecretCredential, SecretSource

log = logging.getLogger(__name__)

MAX_TTL = 3600.0
"""Seconds: the longest `cache_ttl`, and the longest `ttl` of one call."""


@dataclass(frozen=True, slots=True)
class _Served:
    """What one source had for us, and how it came."""

    name: str
    fetched: Fetched
    state: SourceState
    failure: Failed | None = None
    """Why it is stale."""


class SecretStore:
    """All secret sources of a spec. Values live in memory, as long as its cache does.

    A list is fetched once for each question (host, identity, project, environment, path, flags), however
    many sources and readers ask it, and for all that ask at the same time in one call.
    """

    def __init__(
        self,
        sources: Mapping[str, SecretSource],
        *,
        context: SourceContext,
        cache: SecretCache | None = None,
    ) -> None:
        """`cache`: that of the store before this one, which keeps what these sources may still ask."""
        self._specs = dict(sources)
        self._context = replace(context, credentials=context.credentials.with_lookup(self._lookup))
        self._sources: dict[str, Source] = {
            name: REGISTRY[source.kind](source, self._context) for name, source in self._specs.items()
        }
        self._circular = frozenset(needing_themselves(self._specs))
        self._cache = cache or SecretCache()
        self._cache.serve(
            {question for name in self._specs for question in self._questions(name)},
            max((max(spec.cache_ttl, spec.max_stale) for spec in self._specs.values()), default=0.0),
        )
        self._views: dict[tuple[Hashable, ...], tuple[Fetched, Mapping[str, SecretValue]]] = {}
        self._last: dict[str, dict[str, tuple[_Served | None, tuple[Failed, ...]]]] = {}
        """By source and environment: what served it last, and the failures on the way there."""
        self._said: dict[str, SourceState] = {}
        """By source: the state that was logged last, so that a hundred readers make one line."""

    async def values(
        self,
        source: str,
        environment: str,
        *,
        force: bool = False,
        ttl: float | None = None,
        ask: bool = True,
    ) -> Mapping[str, SecretValue]:
        """All values of a source for an environment, each with its provenance.

        `force` asks the source itself, whatever is in memory and however recently it failed. `ttl` stands
        for the `cache_ttl` of the source and its fallbacks, for this call: 0 to 3600 seconds. Without `ask`
        what is in memory has to do. An answer out of memory comes without a pause. Raises SourceDown or
        SourceRefused (both SecretSourceUnavailable) with every attempt in one line, NotYetImplemented, and
        SettingsError for a `ttl` out of range.
        """
        if ttl is not None and not 0 <= ttl <= MAX_TTL:
            raise SettingsError(f"a ttl of {ttl:g} s is not accepted; give 0 to {MAX_TTL:.0f} seconds")
        if source not in self._specs:
            raise no_such(source)
        self._refuse_other_environments(source, environment)
        failures: list[Failed] = []
        chosen = True
        for name in self._chain(source):
            outcome = await self._own(name, environment, force=force and name == source, ttl=ttl, ask=ask)
            if isinstance(outcome, _Served):
                self._keep(name, environment, outcome, (outcome.failure,) if outcome.failure else ())
                if name != source:
                    self._keep(source, environment, outcome, failures)
                    self._say(source, SourceState.FALLBACK, failures, f": {name} serves")
                return self._view(outcome, environment, is_fallback=not chosen)
            # What is switched off in the spec is no outage: then the fallback is what was asked for.
            chosen = chosen and not self._specs[name].enabled
            self._keep(name, environment, None, (outcome,))
            failures.append(outcome)
        self._keep(source, environment, None, failures)
        raise all_failed(source, environment, failures)

    async def refresh(self, source: str, environment: str) -> Mapping[str, SecretValue]:
        """The values after a new call to the source; otherwise as `values`."""
        return await self.values(source, environment, force=True)

    def clear_cache(self, source: str | None = None) -> int:
        """Forget all values of a source, or of all, stale ones and failures too; says how many lists it had.

        Answers under way are not kept either. Sources that ask the same question share what is forgotten.
        Raises SourceRefused where there is no such source.
        """
        if source is not None and source not in self._specs:
            raise no_such(source)
        self._views.clear()
        return self._cache.clear(None if source is None else self._questions(source))

    async def keep_fresh(
        self, on_change: OnChange = nobody, *, draw: Callable[[], float] = random.random
    ) -> NoReturn:
        """Fetch what is read before it expires, for ever. `on_change` is told where that brings other values.

        A list is due at the smaller of `refresh_interval` and 0.8 of `cache_ttl` after its last fetch, or up
        to a fifth earlier, as `draw` says. A failure leaves what there is, and its waiting time is kept.
        """
        await Refresher(self._cache, self, on_change, draw).run()

    async def credential(self, credential: Credential, environment: str = "") -> Secret:
        """The value of a credential now, of a target or another part of the spec. Raises SettingsError."""
        return await self._context.credentials.read(credential, environment)

    def spec_of(self, source: str) -> SecretSource | None:
        return self._specs.get(source)

    async def fetch(self, entry: CacheEntry, source: str, environment: str) -> Fetched | Failed:
        """A new call for this entry, or the one that is under way; for the refresher."""
        return await entry.fetch(lambda: self._call(entry, source, environment), newer=False)

    def freshness(self) -> Mapping[str, Freshness]:
        """What the last use of each source led to, by its name; it does not depend on who asked first."""
        found = {}
        for name, spec in self._specs.items():
            by_environment = self._last.get(name, {})
            each = [self._freshness_in(name, key, by_environment[key]) for key in sorted(by_environment)]
            unused = Freshness(name, spec.kind, SourceState.UNUSED)
            found[name] = replace(min(each, key=goodness, default=unused), enabled=spec.enabled)
        return found

    def freshness_in(self, source: str, environment: str) -> Freshness:
        """The same of one source in one environment."""
        spec, last = self._specs[source], self._last.get(source, {}).get(environment)
        if (problem := self._not_serving(source, environment)) is not None:
            last = (None, (refused(problem),))
        if last is None:
            return Freshness(source, spec.kind, SourceState.UNUSED, enabled=spec.enabled)
        return replace(self._freshness_in(source, environment, last), enabled=spec.enabled)

    def own_answers(self) -> Mapping[str, Sequence[Mapping[str, Secret]]]:
        """By source what it itself gave when it was last read, nothing stale and no fallback's.

        Several only where it answers differently for different environments.
        """
        found: dict[str, Sequence[Mapping[str, Secret]]] = {}
        for name, by_environment in self._last.items():
            newest: dict[Hashable, Fetched] = {}
            for environment, (served, _) in by_environment.items():
                if served is None or served.name != name or served.state is SourceState.STALE:
                    continue
                question = self._sources[name].cache_key(environment)
                if question not in newest or newest[question].at < served.fetched.at:
                    newest[question] = served.fetched
            found[name] = [fetched.values for fetched in newest.values()]
        return found

    def _keep(self, name: str, environment: str, served: _Served | None, failures: Sequence[Failed]) -> None:
        self._last.setdefault(name, {})[environment] = (served, tuple(failures))

    def _freshness_in(
        self, name: str, environment: str, last: tuple[_Served | None, tuple[Failed, ...]]
    ) -> Freshness:
        kind = self._specs[name].kind
        success = self._entry(name, environment).last_success
        served, failures = last
        reason = failures[0].reason if failures else None
        error_kind = failures[0].kind if failures else None
        error = "; ".join(failure.text for failure in failures) or None
        if served is None:
            return Freshness(
                name,
                kind,
                SourceState.FAILED,
                reason=reason,
                error=error,
                last_success=success,
                error_kind=error_kind,
            )
        return Freshness(
            name,
            kind,
            served.state if served.name == name else SourceState.FALLBACK,
            retrieved_at=served.fetched.retrieved_at,
            keys=tuple(sorted(served.fetched.values)),
            served_by=served.name,
            reason=reason,
            error=error,
            last_success=success,
            error_kind=error_kind,
        )

    def _chain(self, source: str) -> Iterator[str]:
        """The source, then its fallbacks with theirs, each once."""
        seen: set[str] = set()
        waiting = [source]
        while waiting:
            name = waiting.pop(0)
            if name not in seen and name in self._specs:
                seen.add(name)
                waiting[:0] = self._specs[name].fallback
                yield name

    def _refuse_other_environments(self, source: str, environment: str) -> None:
        problem = self._not_serving(source, environment)
        if problem is not None:
            raise SourceRefused(problem, hint="name the environment under the source's `environments`")

    def _not_serving(self, name: str, environment: str) -> str | None:
        allowed = self._specs[name].environments
        if not allowed or environment in allowed:
            return None
        asked = f"environment {environment}" if environment else "what belongs to no environment"
        return f"secret source {name} may not serve {asked}, only {', '.join(allowed)}"

    async def _own(
        self, name: str, environment: str, *, force: bool, ttl: float | None, ask: bool
    ) -> _Served | Failed:
        """What this source itself can serve, without its fallbacks."""
        spec = self._specs[name]
        if not spec.enabled:
            return refused(f"secret source {name} is not enabled")
        if (problem := self._not_serving(name, environment)) is not None:
            return refused(problem)
        if name in self._circular:
            return refused(f"secret source {name}: its credentials come, in the end, from itself")
        entry = self._entry(name, environment)
        if not entry.loaded:
            await self._identify(entry, name, environment)
            await entry.load()
        version = await version_of(self._sources[name])
        changed = version is not None and version != entry.version
        good, now = entry.last_good, trio.current_time()
        self._cache.environments.add(environment)
        entry.readers[name, environment] = now
        ttl = spec.cache_ttl if ttl is None else ttl
        if not ask and good is not None and now - good.at < max(ttl, spec.max_stale):
            return _Served(name, good, SourceState.CACHED)
        if not ask:
            return refused(f"secret source {name} is not asked now")
        if not (force or changed) and good is not None and now - good.at < ttl:
            self._say(name, SourceState.CACHED)
            return _Served(name, good, SourceState.CACHED)
        outcome: Fetched | Failed | None = None if force or changed else entry.backing_off()
        if outcome is None:
            outcome = await entry.fetch(lambda: self._call(entry, name, environment), newer=force)
            self._cache.changed.unpark_all()
        if isinstance(outcome, Fetched):
            self._said.pop(name, None)
            return _Served(name, outcome, SourceState.FRESH)
        good = entry.last_good
        if good is not None and (age := trio.current_time() - good.at) <= spec.max_stale:
            self._say(name, SourceState.STALE, [outcome], f", {age:.0f} s old")
            return _Served(name, good, SourceState.STALE, outcome)
        return outcome

    def _entry(self, name: str, environment: str) -> CacheEntry:
        return self._cache.entry((self._specs[name].kind, self._sources[name].cache_key(environment)))

    def _questions(self, name: str) -> set[Question]:
        """All that a source may have been asked."""
        kind, source = self._specs[name].kind, self._sources[name]
        environments = {"", *self._specs[name].environments, *self._cache.environments}
        return {(kind, source.cache_key(environment)) for environment in environments}

    async def _call(self, entry: CacheEntry, name: str, environment: str) -> Fetched | Failed:
        log.info("%s Fetching fresh secrets: source %s", self._mark(name), name)
        asked = trio.current_time()
        # Before the values: a change between the two is seen the next time.
        version = await version_of(self._sources[name])
        try:
            values = await answer_of(self._sources[name], environment)
            entry.version = version
            await self._identify(entry, name, environment)
        except NotYetImplemented:
            raise
        except TrueupError as error:
            entry.version = version
            # Whoever tries again, in the background too: one line for each kind of failure.
            known = entry.last_failure
            again = known is not None and (known.reason, known.down) == (error.reason, error.retryable)
            level = logging.DEBUG if again else logging.WARNING
            log.log(level, "%s Failed to fetch secrets: %s", self._mark(name), error)
            retry_after = error.retry_after if isinstance(error, SourceDown | SourceRefused) else None
            text = str(error)
            if not text.startswith(f"secret source {name}"):
                # A credential that is missing knows nothing of the source that asks for it.
                text = f"secret source {name}: {text}"
            return Failed(text, error.reason, error.retryable, retry_after)
        # The age counts from the question: the answer may have been true then and not any more.
        return Fetched(values, asked, self._context.utc_now())

    async def _identify(self, entry: CacheEntry, name: str, environment: str) -> None:
        """Tell the entry who asks, if it is kept on disk: only what can be read without a network."""

        async def read(credential: Credential) -> Secret:
            if isinstance(credential, SecretCredential):
                for source in self._chain(credential.source):
                    if self._specs[source].kind in KEPT_ON_DISK:
                        raise SecretMissing(f"{source} is behind a network")
            return await self.credential(credential, environment)

        if entry.on_disk:
            entry.identify(await identity_of(self._sources[name], read))

    async def _lookup(self, source: str, key: str, environment: str) -> Secret:
        """A credential that another source holds."""
        values = await self.values(source, environment)
        if key not in values:
            raise SecretMissing(f"secret source {source} has no key {key!r}", hint="a credential asks for it")
        return values[key].value

    def _view(self, served: _Served, environment: str, *, is_fallback: bool) -> Mapping[str, SecretValue]:
        """The values as readers get them; made once for each list and way of serving it."""
        key = (served.name, environment, served.state, is_fallback)
        known = self._views.get(key)
        if known is not None and known[0] is served.fetched:
            return known[1]
        fresh = served.state is SourceState.FRESH
        view = {
            name: SecretValue(
                key=name,
                value=value,
                environment=environment,
                source=self._specs[served.name].kind if fresh else "cache",
                origin=served.name,
                is_cached=not fresh,
                retrieved_at=served.fetched.retrieved_at,
                is_stale=served.state is SourceState.STALE,
                is_fallback=is_fallback,
            )
            for name, value in served.fetched.values.items()
        }
        self._views[key] = (served.fetched, view)
        return view

    def _say(self, name: str, state: SourceState, failures: Sequence[Failed] = (), more: str = "") -> None:
        """One line for each change of state, however many ask."""
        if self._said.get(name) is state:
            return
        self._said[name] = state
        phrase = _PHRASES[state]
        causes = "; ".join(failure.text for failure in failures)
        level = logging.INFO if state is SourceState.CACHED else logging.WARNING
        log.log(
            level,
            "%s %s: source %s%s%s",
            self._mark(name),
            phrase,
            name,
            more,
            f" ({causes})" if causes else "",
        )

    def _mark(self, name: str) -> str:
        kind = self._specs[name].kind
        return "[Infisical]" if kind == "infisical" else f"[{kind}]"


_PHRASES = {
    SourceState.CACHED: "Using cached secrets",
    SourceState.STALE: "Using stale cache",
    SourceState.FALLBACK: "Using fallback",
}
