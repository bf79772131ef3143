"""The API of the secret sources: what they serve, asking one anew, forgetting what was fetched."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from reconciler.errors import NotYetImplemented
from reconciler.runner import Runner
from reconciler.secret_uses import asked_environments, uses_of
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets_report import sources_document
from reconciler.source_sync import changes, environments_of, why
from reconciler.web.answers import answer, refused
from reconciler.web.apis.known import spec_of
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Done, Endpoint, Model, Nothing, Role

SYNC_DEADLINE: Final = 200.0
"""Seconds: a source may be slow, and so may its fallbacks."""


class Which(Asked, frozen=True):
    source: str | None = None
    """One source; left out: all of them."""


class Synced(Model, frozen=True):
    success: bool
    message: str
    changes: Mapping[str, Sequence[str]] | None
    """The keys that appeared, changed or vanished since the last pass; null where that cannot be told."""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    api = _Secrets(runner)
    return [
        Endpoint(
            method="GET",
            path="/api/secrets",
            summary="The secret sources: names, states and ages, never values",
            tag="secrets",
            handler=api.list_sources,
            role=Role.READ,
            answer=dict[str, Any],
        ),
        Endpoint(
            method="POST",
            path="/api/secrets/cache/clear",
            summary="Forget what was fetched from all sources, or from one",
            tag="secrets",
            handler=api.clear_cache,
            role=Role.OPERATE,
            query=Which,
            refusals={404: "There is no such source."},
        ),
        Endpoint(
            method="POST",
            path="/api/secrets/{name}/sync",
            summary="Ask a source itself, in every environment that uses it, whatever is in memory",
            tag="secrets",
            handler=api.sync,
            role=Role.OPERATE,
            answer=Synced,
            deadline=SYNC_DEADLINE,
            refusals={
                409: "The source is not enabled.",
                501: "This kind of source is not built yet.",
                503: "The source did not answer, or no pass has read the spec yet.",
            },
        ),
    ]


class _Secrets:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def list_sources(self, _call: Call[Nothing, Nothing]) -> Response:
        """Names, states, ages: never values. The document of `trueup secrets list`."""
        primary, spec, store = self._runner.primary, spec_of(self._runner), self._store()
        asked = [(name, each) for name, all in asked_environments(spec).items() for each in all]
        found = {pair: store.freshness_in(*pair) for pair in asked}
        uses = uses_of(spec)
        return answer(sources_document(primary.secret_sources(spec), uses, found, primary.now()))

    async def sync(self, call: Call[Nothing, Nothing]) -> Synced | Response:
        """Ask the source itself, in every environment that uses it, whatever is in memory."""
        name, spec, store = call.path["name"], spec_of(self._runner), self._store()
        source = self._runner.primary.secret_sources(spec).get(name)
        if source is None:
            return refused(404, f"Secret {name} not found")
        if not source.enabled:
            return refused(409, f"Secret {name} is not enabled")
        for environment in environments_of(source, asked_environments(spec)):
            try:
                await store.values(name, environment, force=True)
            except NotYetImplemented as error:
                return refused(501, str(error), error.reason)
            found = store.freshness_in(name, environment)
            if found.state is not SourceState.FRESH:
                # An old value or a fallback serves: good for a pass, and not what was asked for here.
                return refused(503, why(found), found.reason)
        told = await changes(self._runner.primary, store, name)
        self._runner.ask(f"secret source {name} was synced", resources=[f"secrets/{name}"])
        return Synced(success=True, message=f"Secret {name} synced successfully", changes=told)

    async def clear_cache(self, call: Call[Which, Nothing]) -> Done | Response:
        """Forget what was fetched from all sources, or from the one that `source` names."""
        name, spec = call.query.source, spec_of(self._runner)
        if name is not None and name not in spec.secret_sources:
            return refused(404, f"Secret {name} not found")
        self._runner.primary.forget_secrets(spec, name)
        self._runner.ask("the cache of secrets was cleared", resources=[f"secrets/{name}"] if name else [])
        cleared = f"Cache of secret {name} cleared" if name else "All secrets cache cleared"
        return Done(success=True, message=cleared)

    def _store(self) -> SecretStore:
        return self._runner.primary.secret_store(spec_of(self._runner))
