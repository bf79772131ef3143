"""A stand-in for Infisical's HTTP API on loopback, with faults by script.

It speaks what `infisicalsdk` needs: logins (universal, OIDC), renewal, and the list of secrets of a folder
with references expanded and imports. Answers have the real server's shapes. It keeps everything in memory
and prints nothing; its log of requests holds no values, tokens or bodies.
"""

import json
import re
import ssl
import threading
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests.canaries import canary
from tests.contracts.http_double import DoubleHandler, HttpDouble

Place = tuple[str, str, str]
"""(project id, environment slug, folder)"""

On = Literal["list", "login", "renew"]

_ROUTES: dict[tuple[str, str], On] = {
    ("GET", "/api/v3/secrets/raw"): "list",
    ("POST", "/api/v1/auth/universal-auth/login"): "login",
    ("POST", "/api/v1/auth/oidc-auth/login"): "login",
    ("POST", "/api/v1/auth/token/renew"): "renew",
}
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
HIDDEN = "<hidden-by-infisical>"
BAD_LOGINS_BEFORE_LOCKOUT = 3

ENDLESS = 2**50
"""Bytes of a body that never ends."""

PATIENCE = 60
"""Seconds after which what a test waits for will not come any more."""


@dataclass(frozen=True)
class Fault:
    """An answer in place of the right one. `hold`: the answer waits for `InfisicalDouble.release`."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    hold: bool = False
    cut: bool = False
    """Close the connection in the middle of the body."""
    endless: bool = False
    """The body goes on until the client leaves."""


def api_error(status: int, kind: str, message: object, **headers: str) -> Fault:
    """As the server's error handler writes them; `message` is a list on a 422."""
    document = {"reqId": "req-double", "statusCode": status, "message": message, "error": kind}
    return Fault(status, json.dumps(document).encode(), headers=tuple(headers.items()))


def too_many_requests(seconds: int = 30) -> Fault:
    return api_error(429, "RateLimitError", f"Rate limit exceeded. Please try again in {seconds} seconds")


def server_error(status: int = 500) -> Fault:
    return api_error(status, "InternalServerError", "Something went wrong")


def invalid_request() -> Fault:
    issue = {"code": "invalid_type", "path": ["environment"], "message": f"Required, got {canary('echo')}"}
    return api_error(422, "ValidationFailure", [issue])


def html() -> Fault:
    page = f"<!doctype html><title>Sign in</title><p>{canary('echo')}</p>"
    return Fault(200, page.encode(), "text/html")


def held() -> Fault:
    return Fault(hold=True)


@dataclass(frozen=True)
class Request:
    """What arrived, without what is secret in it."""

    method: str
    path: str
    query: dict[str, str]
    authorized: bool
    """It carried a bearer token, whatever its worth."""
    on: On | None


@dataclass
class Import:
    """`into` gets the secrets of `place`."""

    into: Place
    place: Place


class InfisicalDouble(HttpDouble):
    """`with InfisicalDouble() as double:` serves at `double.url` until the end of the block.

    `double.secrets[(project, environment, path)] = {"KEY": "value"}` fills a folder; keys in `hidden` have
    their values withheld; `personal` holds secrets of type personal. `double.requests` says what was asked.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.project = "65abc123def456"
        self.client_id = "machine-identity-double"
        self.client_secret = canary("infisical-client-secret")
        self.jwt = canary("infisical-jwt")
        self.secrets: dict[Place, dict[str, str]] = {}
        self.personal: dict[Place, dict[str, str]] = {}
        self.imports: list[Import] = []
        self.hidden: set[str] = set()
        self.tags: dict[str, set[str]] = {}
        """By key: the slugs of its tags."""
        self.unreadable: set[Place] = set()
        """Places that the identity may not read. One reference into them spoils a whole list."""
        self.token_lifetime = 7200
        self.empty_for_unknown = True
        """As servers did until August 2025: a wrong slug or path is 200 with empty lists, else 404."""
        self.forbidden = False
        self.requests: list[Request] = []
        self.bad_logins = 0
        self._faults: list[tuple[On, Fault]] = []
        self._tokens: dict[str, Literal["valid", "expired", "revoked"]] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        super().__init__(_Handler, tls)

    def fail_with(self, fault: Fault, *, on: On = "list", times: int = 1) -> None:
        """The next `times` requests of that kind get this answer; faults queue up in order."""
        with self._lock:
            self._faults += [(on, fault)] * times

    def release(self) -> None:
        """Let held answers go."""
        self._released.set()

    def recover(self) -> None:
        """Drop the faults that were not used."""
        with self._lock:
            self._faults.clear()

    def expire_tokens(self) -> None:
        self._set_tokens("expired")

    def revoke_tokens(self) -> None:
        self._set_tokens("revoked")

    def issue_token(self) -> str:
        """An access token, as for `auth: token`."""
        with self._lock:
            token = canary(f"infisical-token-{next(self._numbers)}")
            self._tokens[token] = "valid"
            return token

    def calls(self, on: On) -> int:
        return sum(request.on == on for request in self.requests)

    def wait_for_calls(self, on: On, number: int = 1) -> None:
        """Until so many requests of that kind have arrived; they may still wait for their answer."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.calls(on) >= number, PATIENCE)

    def _set_tokens(self, state: Literal["expired", "revoked"]) -> None:
        with self._lock:
            self._tokens = dict.fromkeys(self._tokens, state)

    def answer(self, request: Request, body: dict[str, Any], token: str) -> Fault:
        """The answer to one request; called in a server thread."""
        with self._lock:
            self.requests.append(request)
            self._arrived.notify_all()
            queued = next((queued for queued in self._faults if queued[0] == request.on), None)
            if queued is not None:
                self._faults.remove(queued)
        if queued is not None:
            if not queued[1].hold:
                return queued[1]
            self._released.wait()
        match request.on:
            case "login":
                return self._login(body, oidc="oidc-auth" in request.path)
            case "renew":
                return self._renew(body)
            case "list":
                return self._list(request, token)
        return api_error(404, "NotFound", f"Route {request.method}:{request.path} not found")

    def _login(self, body: dict[str, Any], *, oidc: bool) -> Fault:
        if oidc:
            right = body == {"identityId": self.client_id, "jwt": self.jwt}
        else:
            right = body == {"clientId": self.client_id, "clientSecret": self.client_secret}
        with self._lock:
            self.bad_logins = 0 if right and not self.locked_out else self.bad_logins + 1
            refused = self.bad_logins > 0
        if refused:
            return api_error(401, "UnauthorizedError", "Invalid credentials")
        return self._token_answer(self.issue_token())

    @property
    def locked_out(self) -> bool:
        return self.bad_logins >= BAD_LOGINS_BEFORE_LOCKOUT

    def _renew(self, body: dict[str, Any]) -> Fault:
        token = str(body.get("accessToken"))
        if self._tokens.get(token) != "valid":
            return api_error(401, "UnauthorizedError", "Failed to renew access token")
        return self._token_answer(token)

    def _token_answer(self, token: str) -> Fault:
        return _document(
            {
                "accessToken": token,
                "expiresIn": self.token_lifetime,
                "accessTokenMaxTTL": self.token_lifetime * 10,
                "tokenType": "Bearer",
            }
        )

    def _list(self, request: Request, token: str) -> Fault:
        match self._tokens.get(token):
            case None | "revoked":
                return api_error(401, "UnauthorizedError", "Token missing or revoked")
            case "expired":
                return api_error(403, "TokenError", "Your token has expired. Please re-authenticate.")
        if self.forbidden:
            return api_error(403, "PermissionDenied", f"You may not read {canary('echo')}")
        place = (request.query["workspaceId"], request.query["environment"], request.query["secretPath"])
        recursive = request.query.get("recursive") == "true"
        places = [place] if place in self.secrets or place in self.personal else []
        if recursive:
            below = place[2].rstrip("/") + "/"
            places += sorted(
                one
                for one in self.secrets
                if one[:2] == place[:2] and one[2].startswith(below) and one != place
            )
        if not places and not self.empty_for_unknown:
            return api_error(404, "NotFound", f"Folder with path '{place[2]}' not found")
        if self._refers_to_unreadable(places):
            return api_error(403, "PermissionDenied", f"You may not read {canary('echo')}")
        wanted = set(filter(None, request.query.get("tagSlugs", "").split(",")))
        own = [
            self._secret(one, key, value, kind)
            for one in places
            for kind, table in (("shared", self.secrets), ("personal", self.personal))
            for key, value in table.get(one, {}).items()
            if not wanted or wanted & self.tags.get(key, set())
        ]
        imports = [
            {
                "secretPath": one.place[2],
                "environment": one.place[1],
                "folderId": f"folder-{next(self._numbers)}",
                "secrets": [
                    self._secret(one.place, key, value, "shared")
                    for key, value in self.secrets.get(one.place, {}).items()
                ],
            }
            for one in self.imports
            if one.into in places
        ]
        return _document({"secrets": own, "imports": imports})

    def _secret(self, place: Place, key: str, value: str, kind: str) -> dict[str, object]:
        hidden = key in self.hidden
        identifier = f"secret-{next(self._numbers)}"
        return {
            "id": identifier,
            "_id": identifier,
            "workspace": place[0],
            "environment": place[1],
            "version": 1,
            "type": kind,
            "secretKey": key,
            "secretValue": HIDDEN if hidden else self._expanded(place, value),
            "secretComment": "",
            "secretPath": place[2],
            "secretValueHidden": hidden,
            "secretMetadata": [],
            "tags": [],
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
        }

    def _expanded(self, place: Place, value: str) -> str:
        """With references replaced; those without a target stay as they are."""

        def replace(found: re.Match[str]) -> str:
            target, key = _target(place, found[1])
            return self.secrets.get(target, {}).get(key, found[0])

        return _REFERENCE.sub(replace, value)

    def _refers_to_unreadable(self, places: list[Place]) -> bool:
        return any(
            _target(place, found)[0] in self.unreadable
            for place in places
            for value in self.secrets.get(place, {}).values()
            for found in _REFERENCE.findall(value)
        )


def _target(place: Place, reference: str) -> tuple[Place, str]:
    """What a reference in that place names: `KEY` of the same folder, or `environment.folder.KEY`."""
    if "." not in reference:
        return place, reference
    environment, *folders, key = reference.split(".")
    return (place[0], environment, "/" + "/".join(folders)), key


def _document(document: dict[str, Any]) -> Fault:
    return Fault(200, json.dumps(document).encode())


class _Handler(DoubleHandler):
    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        body = self.read_json(None)
        self._serve(body if isinstance(body, dict) else {})

    def _serve(self, body: dict[str, Any]) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(
            self.command, parts.path, query, bool(token), _ROUTES.get((self.command, parts.path))
        )
        answer = self.server.double.answer(request, body, token)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(ENDLESS if answer.endless else len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if answer.endless:
            self.close_connection = True
            for _ in range(ENDLESS // 1024):
                self.wfile.write(b" " * 1024)
        elif answer.cut:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(answer.body)
