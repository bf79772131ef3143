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
from reconciler.web.apis import (
    decisions,
    environments,
    events,
    general,
    history,
    metrics,
    node_writes,
    nodes,
    plan,
    project_files,
    project_writes,
    projects,
    secrets,
    services,
    status,
    tasks,
)
from reconciler.web.callers import local_caller
from reconciler.web.door import Door
from reconciler.web.endpoints import AnyEndpoint, Endpoint, Identify, OpenEndpoint, routes_of
from reconciler.web.guard import App, Limits
from reconciler.web.hosts import HostCheck
from reconciler.web.openapi import openapi
from reconciler.web.page.site import Site

LOCAL_LIMITS: Final = Limits(deadline=240.0, max_requests=64)
"""A request may have to wait for a secret source and its fallbacks."""

SUBJECTS: Final = (
    *(general, metrics, webhooks, deploys),
    *(environments, history, services, plan),
    *(nodes, projects, project_files, secrets),
    *(decisions, node_writes, project_writes),
)
"""Each declares its endpoints."""

PUBLIC_LIMITS: Final = Limits(deadline=30.0, max_requests=256)


def local_app(runner: Runner, stop: trio.Event | None = None) -> Starlette:
    """For the owner of the state directory, who may do everything."""
    return _app(_declared(runner, trio.Event() if stop is None else stop, local_caller), local_caller)


def public_app(runner: Runner, door: Door | None = None, stop: trio.Event | None = None) -> App:
    """For whoever reaches the address: nothing is open without a token or a secret of its own, but what
    says nothing. Without a door nobody gets into the API or the page. What goes on for long, such as the
    page's events, ends with `stop`."""
    stop = trio.Event() if stop is None else stop
    door = door or Door(None, now=runner.primary.now)
    declared = _declared(runner, stop, door)
    signed = [each.path for each in declared if isinstance(each, OpenEndpoint) and each.security is not None]
    api = [each for each in declared if isinstance(each, Endpoint)]
    site = Site(runner, door, api, stop)
    app = _app([*declared, *site.endpoints()], door, site.routes())
    return HostCheck(app, runner.primary.settings.http_hosts, ["/health", *signed])


def _declared(runner: Runner, stop: trio.Event, identify: Identify) -> list[AnyEndpoint]:
    """Answers that go on end with `stop`."""
    declared = [endpoint for subject in SUBJECTS for endpoint in subject.endpoints(runner)]
    declared += manual_sync.endpoints(runner, identify)
    streaming = (tasks, events, status)
    return [*declared, *(each for subject in streaming for each in subject.endpoints(runner, stop))]


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
