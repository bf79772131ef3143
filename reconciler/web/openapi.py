"""`/openapi.json`: the description of everything that is served, made from its declarations. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agent.version import agent_version
from reconciler.web.endpoints import AnyEndpoint, Endpoint, Failure, Nothing, OpenEndpoint

_REFERENCE: Final = "#/components/schemas/{name}"
_BRACES: Final = re.compile(r"\{(\w+)(?::\w+)?\}")

SCHEMES: Final[Mapping[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of TRUEUP_API_TOKENS_FILE; its role says what it may do.",
    },
    "githubSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "`sha256=` and the HMAC-SHA-256 of the raw body by the endpoint's secret, in hex.",
    },
}

EVERYWHERE: Final[Mapping[int, str]] = {
    400: "The request is not as it should be.",
    408: "It took too long.",
    421: "The host that it names is not served here.",
    500: "A mistake in trueup; its log has a line on it.",
    503: "Too much at once, or not ready yet; try again in a moment.",
}
CHECKED: Final[Mapping[int, str]] = {
    401: "No token, or one that is not known.",
    403: "The role of the token does not allow it.",
    429: "Too many requests; `Retry-After` says when to come again.",
}
WITH_BODY: Final[Mapping[int, str]] = {
    413: "The body is too large.",
    415: "The body is not JSON, or compressed.",
}


def openapi(endpoints: Iterable[AnyEndpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these endpoints."""
    all = list(endpoints)
    forms = [form for endpoint in all for form in _forms(endpoint)]
    described, components = msgspec.json.schema_components([*forms, Failure], ref_template=_REFERENCE)
    schemas = dict(zip([*map(repr, forms), "failure"], described, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in all:
        path = _BRACES.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "trueup", "version": agent_version(), "summary": "What a running primary serves"},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": dict(SCHEMES)},
    }


def _forms(endpoint: AnyEndpoint) -> list[Any]:
    forms = [endpoint.answer, endpoint.body]
    if isinstance(endpoint, Endpoint):
        forms += [each.type for each in msgspec.structs.fields(endpoint.query)]
    return [form for form in forms if form is not None and form is not Nothing]


def _operation(endpoint: AnyEndpoint, schemas: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _name(endpoint),
        "tags": [endpoint.tag],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _BRACES.findall(endpoint.path)
        ],
        "responses": {
            str(endpoint.status): {
                "description": "Done.",
                "content": {endpoint.media: {"schema": schemas[repr(endpoint.answer)]}},
            }
        },
    }
    refusals = dict(EVERYWHERE)
    if isinstance(endpoint, Endpoint):
        operation["security"] = [{"token": []}]
        operation["x-role"] = endpoint.role.value
        operation["parameters"] += _query_parameters(endpoint, schemas)
        operation["parameters"] += [
            {"name": name, "in": "header", "description": what, "schema": {"type": "string"}}
            for name, what in endpoint.headers.items()
        ]
        operation["responses"][str(endpoint.status)]["content"] |= {
            media: {"schema": {"type": "string", "description": what}}
            for media, what in endpoint.also.items()
        }
        refusals |= CHECKED
    else:
        operation["security"] = [{endpoint.security: []}] if endpoint.security is not None else []
        operation["parameters"] += list(endpoint.parameters)
    if endpoint.body is not None and endpoint.body is not Nothing:
        operation["requestBody"] = {
            "required": _is_required(endpoint),
            "content": {"application/json": {"schema": schemas[repr(endpoint.body)]}},
        }
        refusals |= WITH_BODY
    if _BRACES.search(endpoint.path):
        refusals |= {404: "There is nothing of that name."}
    refusals |= dict(endpoint.refusals)
    for status, when in sorted(refusals.items()):
        operation["responses"][str(status)] = {
            "description": when,
            "content": {"application/json": {"schema": schemas["failure"]}},
        }
    return operation


def _query_parameters(endpoint: Endpoint, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.encode_name,
            "in": "query",
            "required": each.required,
            "schema": schemas[repr(each.type)],
        }
        for each in msgspec.structs.fields(endpoint.query)
    ]


def _is_required(endpoint: AnyEndpoint) -> bool:
    if isinstance(endpoint, OpenEndpoint):
        return True
    return any(each.required for each in msgspec.structs.fields(endpoint.body))


def _name(endpoint: AnyEndpoint) -> str:
    words = re.findall(r"\w+", _BRACES.sub(r"by_\1", endpoint.path))
    return "_".join([endpoint.method.lower(), *words])
