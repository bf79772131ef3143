"""Every path that is served is declared here in one form, from which its route and its description come.

So a route without a rule for who may use it cannot be written, and `/openapi.json` cannot lag behind.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.web.answers import encoded
from reconciler.web.bodies import Bodies
from reconciler.web.guard import TIME
from reconciler.web.observed import ROUTE
from reconciler.web.refusals import NotAllowed, RequestRefused

MAX_BODY: Final = 1024 * 1024
"""Bytes of the JSON of one request to the API."""


class Role(StrEnum):
    READ = "read"
    OPERATE = "operate"
    """May do everything, reading included."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` stands in commits and records that come of it: `Name <address>` or a plain name."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        return role is Role.READ or self.role is Role.OPERATE


def require_role(caller: Caller, role: Role) -> None:
    """Raises NotAllowed."""
    if not caller.may(role):
        raise NotAllowed(f"this needs a token with the role {role}")


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """Base of what is answered."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what is asked: a query or a body, in which every key is known."""


class Nothing(Asked, frozen=True):
    """No query, or no body."""


class Done(Model, frozen=True):
    """Something was done, or will be; or was not, and why."""

    success: bool
    message: str


class Failure(Model, frozen=True):
    """Why a request was refused. `reason` is stable."""

    success: bool
    message: str
    reason: str | msgspec.UnsetType = msgspec.UNSET


Query = TypeVar("Query")
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Call(Generic[Query, Body]):
    """One request, checked: who asks is known and may, query and body have the declared form."""

    caller: Caller
    query: Query
    body: Body
    path: Mapping[str, str]
    """What the braces of the path stand for."""
    request: Request
    again: Callable[[], Awaitable[Caller]] | None = None
    """Asks once more who it is, for an answer that goes on: raises where their token was taken back."""


Identify = Callable[[Request], Awaitable[Caller]]
"""Who sent a request. Raises NotAuthenticated, before anything of the body is read."""

Checked = Callable[[Call[Any, Any]], Awaitable[msgspec.Struct | Response]]
Open = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method of a path. `handler` gets a checked call, and answers a document of the form `answer`."""

    method: str
    path: str
    summary: str
    tag: str
    handler: Checked
    role: Role
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] = Nothing
    answer: Any = Done
    """The form of the document that is answered, or what is answered instead in `media`."""
    status: int = 200
    media: str = "application/json"
    refusals: Mapping[int, str] = field(default_factory=dict)
    """Statuses, beyond those that every endpoint may answer with, and when."""
    also: Mapping[str, str] = field(default_factory=dict)
    """Other media types that it answers with where Accept asks for them, and what they hold."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that it reads, and what they say."""
    deadline: float | None = None
    """Seconds that it may take once it is known who asks; None: as long as any request there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEndpoint:
    """A path that judges by itself who may use it: by a signature over the raw body, or everybody may."""

    method: str
    path: str
    summary: str
    tag: str
    handler: Open
    security: str | None = None
    """The name of a scheme in `openapi.SCHEMES`; None: everybody."""
    body: Any = None
    """The form of what it takes, only to be described."""
    parameters: tuple[Mapping[str, Any], ...] = ()
    """Headers and such that it reads, as OpenAPI describes them."""
    answer: Any = Done
    status: int = 200
    media: str = "application/json"
    refusals: Mapping[int, str] = field(default_factory=dict)


AnyEndpoint = Endpoint | OpenEndpoint


def routes_of(endpoints: Iterable[AnyEndpoint], identify: Identify) -> list[Route]:
    """The routes, those of one path as one, so that another method of it is answered with 405 and all that
    there are."""
    bodies = Bodies(most=MAX_BODY)
    by_path: dict[str, dict[str, Open]] = {}
    for endpoint in endpoints:
        known = by_path.setdefault(endpoint.path, {})
        assert endpoint.method not in known, f"{endpoint.method} {endpoint.path} is declared twice"
        known[endpoint.method] = (
            endpoint.handler if isinstance(endpoint, OpenEndpoint) else _checking(endpoint, identify, bodies)
        )
    return [
        Route(path, _by_method(path, handlers), methods=list(handlers)) for path, handlers in by_path.items()
    ]


def _by_method(path: str, handlers: Mapping[str, Open]) -> Open:
    async def serve(request: Request) -> Response:
        request.scope[ROUTE] = path
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return serve


def _checking(endpoint: Endpoint, identify: Identify, bodies: Bodies) -> Open:
    async def serve(request: Request) -> Response:
        caller = await identify(request)
        require_role(caller, endpoint.role)
        if endpoint.deadline is not None and TIME in request.scope:
            request.scope[TIME].allow(endpoint.deadline)
        query = _query(request, endpoint.query)
        body = await _body(request, endpoint.body, bodies)
        answered = await endpoint.handler(
            Call(caller, query, body, request.path_params, request, partial(identify, request))
        )
        if isinstance(answered, Response):
            return answered
        return encoded(answered, endpoint.status)

    return serve


def _query(request: Request, form: type[msgspec.Struct]) -> msgspec.Struct:
    given = request.query_params.multi_items()
    if len(given) != len({name for name, _ in given}):
        raise RequestRefused(400, "a parameter is given more than once")
    try:
        return msgspec.convert(dict(given), form, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise RequestRefused(400, f"the query is not as it should be: {error}") from None


async def _body(request: Request, form: type[msgspec.Struct], bodies: Bodies) -> msgspec.Struct:
    if form is Nothing:
        return Nothing()
    if request.headers.get("content-encoding"):
        raise RequestRefused(415, "a body is taken as it is, without a content encoding")
    async with bodies.read(request) as body:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and media != "application/json":
            raise RequestRefused(415, "the body should be JSON, and its content type application/json")
        try:
            return msgspec.json.decode(body or b"{}", type=form)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(400, f"the body is not as it should be: {error}") from None
