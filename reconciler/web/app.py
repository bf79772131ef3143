"""Which paths are served where: everything on the local socket, little on the open address."""

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reconciler.errors import TrueupError
from reconciler.runner import Runner
from reconciler.web.answers import answer, done, http_error, trueup_error
from reconciler.web.api_secrets import SecretsApi
from reconciler.web.deploys import Deploys
from reconciler.web.guard import Limits
from reconciler.web.webhooks import Webhooks

LOCAL_LIMITS: Final = Limits(deadline=240.0, max_requests=64)
"""A request may have to wait for a secret source and its fallbacks."""

PUBLIC_LIMITS: Final = Limits(deadline=30.0, max_requests=256)


def local_app(runner: Runner) -> Starlette:
    """For the owner of the state directory, who may do everything."""
    general = General(runner)
    return _app([*general.routes(), *general.local_routes(), *SecretsApi(runner).routes()])


def public_app(runner: Runner) -> Starlette:
    """For whoever reaches the address: nothing is open without a secret of its own, but `/health`."""
    webhook = Route("/webhook", Webhooks(runner).receive, methods=["POST"])
    return _app([*General(runner).routes(), webhook, *Deploys(runner).routes()])


class General:
    """What concerns the primary as a whole."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def routes(self) -> list[Route]:
        return [Route("/health", self.health, methods=["GET"])]

    def local_routes(self) -> list[Route]:
        return [Route("/api/reconcile", self.reconcile, methods=["POST"])]

    async def health(self, _request: Request) -> JSONResponse:
        """Alive, and whether a pass has been made. Nothing of what it found: anybody may ask."""
        last = self._runner.last
        return answer({"status": "ok", "ready": last is not None and last.error is None})

    async def reconcile(self, _request: Request) -> JSONResponse:
        self._runner.ask("request")
        return done("A pass was asked for", 202)


def _app(routes: list[Route]) -> Starlette:
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error, TrueupError: trueup_error})
