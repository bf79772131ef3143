"""What the buttons of the page do: each is one endpoint of the API, done by the same function.

A button is there only for who may press it, and where the API has what it does; both are judged again when
it is pressed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from reconciler.web.endpoints import Call, Caller, Endpoint
from reconciler.web.guard import TIME
from reconciler.web.refusals import NotAllowed, RequestRefused

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Deed:
    """`path`, `query` and `body` say under which name the API has a field of the form."""

    method: str
    at: str
    section: str
    """Where on the page it is."""
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)
    confirmed_by: str = ""
    """The field whose value has to be typed once more."""


NAME: Final = {"name": "name"}

DEEDS: Final[Mapping[str, Deed]] = {
    "reconcile": Deed("POST", "/api/reconcile", "overview"),
    "sync": Deed("POST", "/api/secrets/{name}/sync", "sources", NAME),
    "clear": Deed("POST", "/api/secrets/cache/clear", "sources", query={"source": "source"}),
}


@dataclass(frozen=True, slots=True)
class Did:
    """What came of it. `told`: the whole answer."""

    success: bool
    message: str
    told: Mapping[str, Any]


class Doing:
    """The deeds that an API allows."""

    def __init__(self, api: Iterable[Endpoint]) -> None:
        by_place = {(each.method, each.path): each for each in api}
        self._endpoints = {
            name: by_place[deed.method, deed.at]
            for name, deed in DEEDS.items()
            if (deed.method, deed.at) in by_place
        }

    def open_to(self, caller: Caller) -> frozenset[str]:
        return frozenset(name for name, each in self._endpoints.items() if caller.may(each.role))

    async def do(self, name: str, form: Form, caller: Caller, request: Request) -> Did:
        """Raises NotAllowed, RequestRefused and what the API refuses with."""
        deed, endpoint = DEEDS.get(name), self._endpoints.get(name)
        if deed is None or endpoint is None:
            raise RequestRefused(404, "there is no such button")
        if not caller.may(endpoint.role):
            raise NotAllowed(f"this needs a token with the role {endpoint.role}")
        if deed.confirmed_by and form.get("confirm", "").strip() != form.get(deed.confirmed_by):
            raise RequestRefused(400, f"to confirm it, type {form.get(deed.confirmed_by, '')}")
        return await run(
            endpoint,
            caller,
            request,
            path=_named(deed.path, form),
            query=_named(deed.query, form),
            body=_named(deed.body, form),
        )


async def run(
    endpoint: Endpoint,
    caller: Caller,
    request: Request,
    *,
    path: Mapping[str, str] = {},
    query: Mapping[str, Any] = {},
    body: Mapping[str, Any] = {},
) -> Did:
    """Calls what an endpoint of the API calls, with a query and a body checked in the same way."""
    try:
        asked = msgspec.convert(dict(query), endpoint.query, strict=False)
        given = msgspec.convert(dict(body), endpoint.body, strict=False)
    except msgspec.ValidationError as error:
        raise RequestRefused(400, f"the form is not as it should be: {error}") from None
    answered = await endpoint.handler(Call(caller, asked, given, path, request))
    return _did(answered)


def _did(answered: msgspec.Struct | Response) -> Did:
    if isinstance(answered, Response):
        told = msgspec.json.decode(bytes(answered.body) or b"{}")
        success = answered.status_code < 400
    else:
        told, success = msgspec.to_builtins(answered), True
    found: dict[str, Any] = told if isinstance(told, dict) else {}
    return Did(success and found.get("success") is not False, str(found.get("message", "done")), found)


def _named(names: Mapping[str, str], form: Form) -> dict[str, str]:
    """The fields that the API has, by its own names; what was left empty was not given."""
    return {theirs: form[ours] for theirs, ours in names.items() if form.get(ours)}


def allow_time(request: Request, seconds: float) -> None:
    """Let a request take longer than others do."""
    if TIME in request.scope:
        request.scope[TIME].allow(seconds)
