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

from reconciler.web.endpoints import Call, Caller, Endpoint, require_role
from reconciler.web.guard import TIME
from reconciler.web.page.changes import ADD, SETTINGS
from reconciler.web.page.form_text import lines_of
from reconciler.web.refusals import RequestRefused

Form = Mapping[str, str]
Place = tuple[str, str]
"""Method and path of an endpoint."""

DEED_TIME: Final = 200.0
"""Seconds that a button may take: it may wait for a remote, or a secret source."""


@dataclass(frozen=True, slots=True)
class Deed:
    """`path`, `query` and `body` say under which name the API has a field of the form."""

    method: str
    at: str
    section: str
    """Where on the page it is; empty: in the section of the form's `kind`."""
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)
    lines: frozenset[str] = frozenset()
    """Names in the body that the API has as a list: one a line in the form."""
    confirmed_by: str = ""
    """The field whose value has to be typed once more."""

    def place(self, form: Form) -> str:
        """The id of the section to go back to."""
        return self.section or (form["kind"] if form.get("kind") in RESOURCES else "overview")


RESOURCES: Final = frozenset({"services", "projects", "nodes", "environments"})
"""Kinds of resources that can be suspended, each with a section of that name."""

_NAME: Final = {"name": "name"}
_ENV: Final = {"env": "name"}


def _decision(verb: str, *body: str, confirmed_by: str = "", **renamed: str) -> Deed:
    fields = {name: name for name in body} | renamed
    return Deed(
        "POST",
        f"/api/environments/{{env}}/{verb}",
        "environments",
        _ENV,
        body=fields,
        confirmed_by=confirmed_by,
    )


def _node(verb: str, *lines: str, **body: str) -> Deed:
    at, fields = f"/api/sync/nodes/{{name}}/{verb}", {name: name for name in lines} | body
    return Deed("POST", at, "nodes", _NAME, body=fields, lines=frozenset(lines))


def _resource(verb: str) -> Deed:
    at = f"/api/resources/{{kind}}/{{name:path}}/{verb}"
    return Deed("POST", at, "", {"kind": "kind", "name": "name"}, body={"reason": "reason"})


DEEDS: Final[Mapping[str, Deed]] = {
    "reconcile": Deed("POST", "/api/reconcile", "overview"),
    "freeze": Deed("POST", "/api/freeze", "overview", body={"reason": "reason"}),
    "unfreeze": Deed("POST", "/api/unfreeze", "overview"),
    "approve": _decision("approve", "unit", "tag"),
    "hold": _decision("hold", "unit", "reason"),
    "unhold": _decision("unhold", "unit"),
    "promote": _decision("promote", "unit", "tag", confirmed_by="name", **{"from": "source"}),
    "rollback": _decision("rollback", "unit", "reason", to="tag"),
    "test": _node("test"),
    "rotate": _node("rotate-token", "primaries"),
    "renew": _node("rotate-certificate"),
    "repair": _node("repair"),
    "revoke": _node("revoke", reason="reason"),
    "node-rollback": Deed(
        "POST",
        "/api/sync/nodes/{name}/projects/{project}/rollback",
        "nodes",
        {"name": "name", "project": "project"},
        body={"to": "to", "lift": "lift", "reason": "reason"},
    ),
    "suspend": _resource("suspend"),
    "resume": _resource("resume"),
    "run": Deed(
        "POST",
        "/api/sync/projects/{name}/run",
        "projects",
        _NAME,
        query={"environment": "environment"},
    ),
    "retry": Deed("POST", "/api/sync/tasks/{id}/retry", "tasks", {"id": "id"}),
    "sync": Deed("POST", "/api/secrets/{name}/sync", "sources", _NAME),
    "clear": Deed("POST", "/api/secrets/cache/clear", "sources", query={"source": "source"}),
}


FILES: Final[Place] = ("GET", "/api/sync/projects/{name}/files")

FORMS: Final[Mapping[str, Place]] = {"node-form": ADD, "project-form": SETTINGS, "files": FILES}
"""What has a page of its own, by what it asks the API for."""


@dataclass(frozen=True, slots=True)
class Did:
    """What came of it. `told`: the whole answer."""

    success: bool
    message: str
    told: Mapping[str, Any]


class Doing:
    """What the page may have done by an API."""

    def __init__(self, api: Iterable[Endpoint]) -> None:
        self._api = {(each.method, each.path): each for each in api}
        places = {**{name: (deed.method, deed.at) for name, deed in DEEDS.items()}, **FORMS}
        self._known = {name: self._api[place] for name, place in places.items()}

    def open_to(self, caller: Caller) -> frozenset[str]:
        """The names of the buttons and forms that somebody may use."""
        return frozenset(name for name, each in self._known.items() if caller.may(each.role))

    def require(self, name: str, caller: Caller) -> None:
        """Raises NotAllowed where somebody may not use this button or form."""
        require_role(caller, self._known[name].role)

    async def do(self, name: str, form: Form, caller: Caller, request: Request) -> Did:
        """Raises NotAllowed, RequestRefused and what the API refuses with."""
        deed = DEEDS.get(name)
        if deed is None:
            raise RequestRefused(404, "there is no such button")
        given = _named(deed.body, form)
        body: dict[str, Any] = {
            name: lines_of(text) if name in deed.lines else text for name, text in given.items()
        }
        if deed.confirmed_by:
            if form.get("confirm", "").strip() != form.get(deed.confirmed_by):
                raise RequestRefused(400, f"not done: to confirm it, type {form.get(deed.confirmed_by, '')}")
            body["confirm"] = "deploy"
        call: Call[Any, Any] = Call(caller, _named(deed.query, form), body, _named(deed.path, form), request)
        return await self.call((deed.method, deed.at), call)

    async def call(self, place: Place, call: Call[Any, Any]) -> Did:
        """What an endpoint of the API does, the role judged, a query and a body checked in the same way."""
        endpoint = self._api[place]
        require_role(call.caller, endpoint.role)
        try:
            query = msgspec.convert(dict(call.query), endpoint.query, strict=False)
            body = msgspec.convert(dict(call.body), endpoint.body, strict=False)
        except msgspec.ValidationError as error:
            raise RequestRefused(400, f"the form is not as it should be: {error}") from None
        checked = Call(call.caller, query, body, call.path, call.request)
        return _did(await endpoint.handler(checked))


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


def allow_time(request: Request, seconds: float = DEED_TIME) -> None:
    """Let a request take as long as a button may, or as what it asks for."""
    if TIME in request.scope:
        request.scope[TIME].allow(seconds)
