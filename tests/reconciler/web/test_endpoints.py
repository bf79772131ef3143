"""Endpoints as they are declared: who may, what is taken, and that the description says so."""

import json
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

from reconciler.errors import TrueupError
from reconciler.web.answers import http_error, trueup_error
from reconciler.web.endpoints import (
    MAX_BODY,
    Asked,
    Call,
    Caller,
    Endpoint,
    Model,
    Nothing,
    Role,
    routes_of,
)
from reconciler.web.openapi import openapi
from reconciler.web.refusals import NotAuthenticated


class Filter(Asked, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


class Edit(Asked, frozen=True):
    full_name: str


class Seen(Model, frozen=True):
    by: str
    what: str


async def looked(call: Call[Filter, Nothing]) -> Seen:
    return Seen(by=call.caller.name, what=f"{call.path['name']} {call.query.limit}")


async def edited(call: Call[Nothing, Edit]) -> Seen:
    return Seen(by=call.caller.name, what=call.body.full_name)


ENDPOINTS = [
    Endpoint(
        method="GET", path="/api/things/{name}", summary="Look at one", tag="things", handler=looked,
        role=Role.READ, query=Filter, answer=Seen,
    ),
    Endpoint(
        method="POST", path="/api/things/{name}", summary="Edit one", tag="things", handler=edited,
        role=Role.OPERATE, body=Edit, answer=Seen, status=201,
    ),
]  # fmt: skip


JSON = {"content-type": "application/json"}


async def by_header(request: Request) -> Caller:
    name = request.headers.get("x-name")
    if name is None:
        raise NotAuthenticated("nobody is known to ask")
    return Caller(name, Role(request.headers["x-role"]))


async def ask(method: str, path: str, role: str | None = "operate", **options: Any) -> httpx.Response:
    app = Starlette(
        routes=routes_of(ENDPOINTS, by_header),
        exception_handlers={HTTPException: http_error, TrueupError: trueup_error},
    )
    headers = {} if role is None else {"x-name": "Ann", "x-role": role}
    headers |= options.pop("headers", {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://primary") as client:
        return await client.request(method, path, headers=headers, **options)


async def test_who_may_use_an_endpoint() -> None:
    nobody = await ask("GET", "/api/things/a", None)
    assert (nobody.status_code, nobody.json()["reason"]) == (401, "NotAuthenticated")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert (await ask("GET", "/api/things/a", "read")).json() == {"by": "Ann", "what": "a 20"}
    assert (await ask("GET", "/api/things/a")).status_code == 200
    reader = await ask("POST", "/api/things/a", "read", json={"fullName": "x"})
    assert (reader.status_code, reader.json()["reason"]) == (403, "NotAllowed")
    assert (await ask("POST", "/api/things/a", json={"fullName": "x"})).json() == {"by": "Ann", "what": "x"}
    assert (await ask("DELETE", "/api/things/a")).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/api/things/a?limit=0", {}, 400),
        ("GET", "/api/things/a?limit=1&limit=2", {}, 400),
        ("GET", "/api/things/a?other=1", {}, 400),
        ("POST", "/api/things/a", {"json": {"fullName": 1}}, 400),
        ("POST", "/api/things/a", {"json": {"fullName": "x", "more": 1}}, 400),
        ("POST", "/api/things/a", {}, 400),
        ("POST", "/api/things/a", {"content": b'{"fullName": "x"}'}, 415),
        ("POST", "/api/things/a", {"json": {"fullName": "x"}, "headers": {"content-encoding": "gzip"}}, 415),
        ("POST", "/api/things/a", {"json": {"fullName": "x" * MAX_BODY}}, 413),
        ("POST", "/api/things/a", {"content": b"[" * 100_000, "headers": JSON}, 400),
    ],
)  # fmt: skip
async def test_what_is_not_taken(method: str, path: str, options: dict[str, Any], status: int) -> None:
    answered = await ask(method, path, **options)
    assert (answered.status_code, answered.json()["success"]) == (status, False)


def test_the_description_says_all_of_it() -> None:
    document = json.loads(json.dumps(openapi(ENDPOINTS)))
    operations = document["paths"]["/api/things/{name}"]
    assert operations.keys() == {"get", "post"}
    assert [each["name"] for each in operations["get"]["parameters"]] == ["name", "limit"]
    assert operations["get"]["parameters"][1]["schema"]["maximum"] == 100
    assert operations["post"]["security"] == [{"token": []}]
    body = operations["post"]["requestBody"]
    assert body["required"] and body["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Edit"
    }
    assert {"201", "400", "401", "403", "413", "415", "429"} <= operations["post"]["responses"].keys()
    assert document["components"]["schemas"]["Seen"]["required"] == ["by", "what"]
