"""JSON answers, the same form everywhere: a document, or `{"success": false, "message": ...}`."""

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.errors import TrueupError
from reconciler.status.conditions import bounded

NO_STORE = {"Cache-Control": "no-store"}


def encoded(document: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, NO_STORE, "application/json")


def answer(document: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(document, status, NO_STORE)


def done(message: str, status: int = 200) -> JSONResponse:
    return answer({"success": True, "message": message}, status)


def refused(status: int, message: str, reason: str | None = None) -> JSONResponse:
    document = {"success": False, "message": bounded(message)}
    return answer(document if reason is None else document | {"reason": reason}, status)


async def http_error(_request: Request, error: Exception) -> JSONResponse:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    refusal = refused(
        error.status_code, error.detail, HTTPStatus(error.status_code).phrase.title().replace(" ", "")
    )
    refusal.headers.update(error.headers or {})
    return refusal


async def trueup_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TrueupError)
    status = getattr(error, "status", 503 if error.retryable else 502)
    refusal = refused(status, str(error), error.reason)
    refusal.headers.update(getattr(error, "headers", {}))
    return refusal
