"""Which paths are served where: everything on the local socket, little on the open address."""

from collections.abc import Sequence
from typing import Any, Final

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.errors import TrueupError
from reconciler.runner import Runner
from reconciler.web import deploys, manual_sync, webhooks
from reconciler.web.answers import answer, http_error, trueup_error
from reconciler.web.apis import decisions, general, metrics, node_writes, project_writes, secrets
from reconciler.web.callers import local_caller
from reconciler.web.door import Door
from reconciler.web.endpoints import AnyEndpoint, Endpoint, Identify, OpenEndpoint, routes_of
from reconciler.web.guard import App, Limits
from reconciler.web.hosts import HostCheck
from reconciler.web.openapi import openapi
from reconciler.web.page.site import Site

LOCAL_LIMITS: Final = Limits(deadline=240.0, max_requests=64)
"""A request may have to wait for a secret source and its fallbacks."""

PUBLIC_LIMITS: Final = Limits(deadline=30.0, max_requests=256)


def local_app(runner: Runner) -> Starlette:
    """For the owner of the state directory, who may do everything."""
    return _app([*_open(runner, local_caller), *_api(runner)], local_caller)


def public_app(runner: Runner, door: Door | None = None, stop: trio.Event | None = None) -> App:
    """For whoever reaches the address: nothing is open without a token or a secret of its own, but what
    says nothing. Without a door nobody gets into the API or the page. What goes on for long, such as the
    page's events, ends with `stop`."""
    door = door or Door(None, now=runner.primary.now)
    opened, api = _open(runner, door), _api(runner)
    signed = [each.path for each in opened if each.security is not None]
    site = Site(runner, door, api, trio.Event() if stop is None else stop)
    app = _app([*opened, *api, *site.endpoints()], door, site.routes())
    return HostCheck(app, runner.primary.settings.http_hosts, ["/health", *signed])


def _open(runner: Runner, identify: Identify) -> list[OpenEndpoint]:
    found = [each for subject in (general, metrics, webhooks, deploys) for each in subject.endpoints(runner)]
    return [
        endpoint
        for endpoint in (*found, *manual_sync.endpoints(runner, identify))
        if isinstance(endpoint, OpenEndpoint)
    ]


def _api(runner: Runner) -> list[Endpoint]:
    return [
        endpoint
        for subject in (general, metrics, secrets, node_writes, project_writes, decisions)
        for endpoint in subject.endpoints(runner)
        if isinstance(endpoint, Endpoint)
    ]


def _app(endpoints: list[AnyEndpoint], identify: Identify, more: Sequence[Route] = ()) -> Starlette:
    """`more`: paths that are not described to others."""
    described = [*endpoints]

    async def describe(_request: Request) -> Response:
        return answer(openapi(described))

    described.append(
        OpenEndpoint(
            method="GET",
            path="/openapi.json",
            summary="This description",
            tag="general",
            handler=describe,
            answer=dict[str, Any],
        )
    )
    app = Starlette(
        routes=[*routes_of(described, identify), *more],
        exception_handlers={HTTPException: http_error, TrueupError: trueup_error},
    )
    # A path with one slash more is another path.
    app.router.redirect_slashes = False
    return app
