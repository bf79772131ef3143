"""The API of the secret sources: what they serve, asking one anew, forgetting what was fetched."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reconciler.errors import NotYetImplemented, TrueupError
from reconciler.runner import Runner
from reconciler.secret_uses import asked_environments, uses_of
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets_report import sources_document
from reconciler.source_sync import changes, environments_of, why
from reconciler.spec.model import Spec
from reconciler.web.answers import answer, done, refused


class NoPassYet(TrueupError):
    """The spec is not known yet."""

    reason = "NoPassYet"
    retryable = True


class SecretsApi:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def routes(self) -> list[Route]:
        return [
            Route("/api/secrets", self.list_sources, methods=["GET"]),
            Route("/api/secrets/cache/clear", self.clear_cache, methods=["POST"]),
            Route("/api/secrets/{name}/sync", self.sync, methods=["POST"]),
        ]

    async def list_sources(self, _request: Request) -> JSONResponse:
        """Names, states, ages: never values. The document of `trueup secrets list`."""
        primary, spec, store = self._runner.primary, self._spec(), self._store()
        asked = [(name, each) for name, all in asked_environments(spec).items() for each in all]
        found = {pair: store.freshness_in(*pair) for pair in asked}
        uses = uses_of(spec)
        return answer(sources_document(primary.secret_sources(spec), uses, found, primary.now()))

    async def sync(self, request: Request) -> JSONResponse:
        """Ask the source itself, in every environment that uses it, whatever is in memory."""
        name, spec, store = request.path_params["name"], self._spec(), self._store()
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
        self._runner.ask(f"secret source {name} was synced")
        return answer({"success": True, "message": f"Secret {name} synced successfully", "changes": told})

    async def clear_cache(self, request: Request) -> JSONResponse:
        """Forget what was fetched from all sources, or from the one that `source` names."""
        name, spec, store = request.query_params.get("source"), self._spec(), self._store()
        if name is not None and name not in spec.secret_sources:
            return refused(404, f"Secret {name} not found")
        store.clear_cache(name)
        self._runner.ask("the cache of secrets was cleared")
        return done(f"Cache of secret {name} cleared" if name else "All secrets cache cleared")

    def _spec(self) -> Spec:
        if self._runner.primary.spec is None:
            raise NoPassYet("no pass has read the spec yet", hint="try again in a moment, or look at the log")
        return self._runner.primary.spec

    def _store(self) -> SecretStore:
        return self._runner.primary.secret_store(self._spec())
