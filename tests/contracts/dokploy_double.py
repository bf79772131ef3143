"""A stand-in for Dokploy's REST API on loopback: compose applications, their deployments, and faults.

Facts, from github.com/Dokploy/dokploy: the API description that it publishes (openapi.json), which names the
paths, fields and errors, and the code that it is made of (apps/dokploy/server/api/routers/compose.ts and
deployment.ts, apps/dokploy/pages/api/[...trpc].ts, packages/server/src/services/compose.ts and
deployment.ts, packages/server/src/db/schema/deployment.ts):
- without a valid key every path answers 401 with a message and no code; other errors have both;
- a missing or mistyped field is 400; an id that is not there is 404 "Compose not found";
- compose.update replaces each field that it is given and answers with the whole application;
- compose.deploy answers once the job is queued; a deployment stands in the list from when its turn comes,
  as `running`, then `done`, `error` or `cancelled`; the newest stands first and about ten are kept;
- compose.stop makes the application `idle`.

Stricter than Dokploy in one thing, so that a typo shows: a field that the description does not name is 400,
where Dokploy drops it. It keeps everything in memory and prints nothing; its log of requests holds no values.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.canaries import canary
from tests.contracts.http_double import DoubleHandler, HttpDouble

Name = Literal["compose.one", "compose.update", "compose.deploy", "compose.stop", "deployment.allByCompose"]
Status = Literal["running", "done", "error", "cancelled"]

METHODS: dict[str, str] = {
    "compose.one": "GET",
    "compose.update": "POST",
    "compose.deploy": "POST",
    "compose.stop": "POST",
    "deployment.allByCompose": "GET",
}
FIELDS: dict[str, dict[str, type]] = {
    "compose.one": {"composeId": str},
    "compose.deploy": {"composeId": str, "title": str, "description": str},
    "compose.stop": {"composeId": str},
    "deployment.allByCompose": {"composeId": str},
    "compose.update": {
        **dict.fromkeys(("composeId", "name", "description", "env", "composeFile", "sourceType"), str),
        "composeStatus": str,
        "createEnvFile": bool,
        "autoDeploy": bool,
    },
}
"""What each takes; composeId is required. Of compose.update's, those that have to do with us."""

SOURCES = ("git", "github", "gitlab", "bitbucket", "gitea", "raw")
KEPT = 10


@dataclass(frozen=True)
class Fault:
    """An answer in place of the right one. `hold`: it waits for `release`, and nothing is done even then."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"message": "no", "code": "INTERNAL_SERVER_ERROR"}'
    hold: bool = False


def slow_down(seconds: int) -> Fault:
    return Fault(429, (("Retry-After", str(seconds)),), b'{"message": "slow", "code": "TOO_MANY_REQUESTS"}')


HTML = Fault(200, (), b"<!DOCTYPE html><title>Dokploy</title>")
"""What a server answers that serves the dashboard at the address, or a proxy's page for signing in."""


@dataclass
class Deployment:
    title: str
    description: str
    status: Status
    error: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def document(self) -> dict[str, Any]:
        return {
            "deploymentId": self.id,
            "title": self.title,
            "description": self.description,
            "status": self.status,
            "errorMessage": self.error,
            "logPath": f"/etc/dokploy/logs/shop/{self.id}.log",
        }


@dataclass
class Application:
    """One compose application."""

    id: str
    env: str | None = field(default=None, repr=False)
    file: str = field(default="", repr=False)
    source: str = "github"
    status: str = "idle"
    writes_env_file: bool = True
    running: dict[str, str] | None = field(default=None, repr=False)
    """The variables that its containers run with, those of the last deployment that was done."""
    runs: str = field(default="", repr=False)
    """The compose file of that deployment."""
    deployments: list[Deployment] = field(default_factory=list)
    """The newest first."""
    queued: list[tuple[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "composeId": self.id,
            "name": "shop",
            "env": self.env,
            "composeFile": self.file,
            "sourceType": self.source,
            "composeType": "docker-compose",
            "composeStatus": self.status,
            "createEnvFile": self.writes_env_file,
            "deployments": [each.document() for each in self.deployments],
        }


class DokployDouble(HttpDouble):
    """`with DokployDouble() as double:` serves at `double.url` until the end of the block.

    A deployment that is queued ends with the list request that comes after `takes` others that saw it, as
    `ends` says.
    """

    def __init__(self) -> None:
        self.key = canary("dokploy-key")
        self.applications: dict[str, Application] = {}
        self.requests: list[tuple[str, str]] = []
        """Name and composeId of each, in order."""
        self.takes = 0
        self.ends: Literal["done", "error", "cancelled", "never", "stuck"] = "done"
        """never: it goes on running; stuck: its turn never comes."""
        self.says: str | None = None
        """The error message of a deployment that fails."""
        self.answers_true = False
        """In Dokploy's cloud compose.deploy answers with `true` alone."""
        self.holding = threading.Event()
        """Set while an answer is held."""
        self._faults: list[tuple[Name, Fault]] = []
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        super().__init__(_Handler)

    # --- what a test does to it ----------------------------------------------------------------

    def add(self, compose_id: str, **given: Any) -> Application:
        self.applications[compose_id] = Application(compose_id, **given)
        return self.applications[compose_id]

    def fail_with(self, fault: Fault, *, on: Name, times: int = 1) -> None:
        with self._lock:
            self._faults += [(on, fault)] * times

    def recover(self) -> None:
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        self._released.set()

    def asked(self, *names: Name) -> list[str]:
        """The requests of these names, or those that change something, in order."""
        wanted = names or ("compose.update", "compose.deploy", "compose.stop")
        return [name for name, _ in self.requests if name in wanted]

    # --- what it answers -----------------------------------------------------------------------

    def answer(self, method: str, target: str, key: str, body: Any) -> Fault:
        parts = urlsplit(target)
        name = parts.path.removeprefix("/api/")
        given = dict(parse_qsl(parts.query)) if method == "GET" else body
        with self._lock:
            about = given.get("composeId") if isinstance(given, dict) else None
            self.requests.append((name, str(about or "")))
            fault = next((each for each in self._faults if each[0] == name), None)
            if fault is not None:
                self._faults.remove(fault)
        if fault is not None:
            if fault[1].hold:
                self.holding.set()
                self._released.wait()
            return fault[1]
        if key != self.key:
            return Fault(401, body=b'{"message": "Unauthorized"}')
        if METHODS.get(name) != method:
            return _error(404, "NOT_FOUND", "Not found")
        with self._lock:
            return _invalid(name, given) or self._right(name, given)

    def _right(self, name: str, given: dict[str, Any]) -> Fault:
        application = self.applications.get(given["composeId"])
        if application is None:
            return _error(404, "NOT_FOUND", "Compose not found")
        match name:
            case "compose.one":
                return _json(application.document())
            case "compose.update":
                application.env = given.get("env", application.env)
                application.file = given.get("composeFile", application.file)
                application.source = given.get("sourceType", application.source)
                application.writes_env_file = given.get("createEnvFile", application.writes_env_file)
                return _json(application.document())
            case "compose.deploy":
                queued = (given.get("title") or "Manual deployment", given.get("description") or "")
                application.queued.append(queued)
                if self.answers_true:
                    return _json(True)
                return _json({"success": True, "message": "Deployment queued", "composeId": application.id})
            case "compose.stop":
                application.status, application.running = "idle", None
                return _json(True)
            case _:
                self._work(application)
                return _json([each.document() for each in application.deployments])

    def _work(self, application: Application) -> None:
        """What the queue has got to by now."""
        if self.ends == "stuck":
            return
        for title, description in application.queued:
            application.deployments.insert(0, Deployment(title, description, "running"))
            application.status = "running"
        application.queued.clear()
        del application.deployments[KEPT:]
        for deployment in application.deployments:
            seen = self._seen.get(deployment.id, 0)
            self._seen[deployment.id] = seen + 1
            if deployment.status != "running" or seen < self.takes or self.ends in ("never", "stuck"):
                continue
            assert self.ends in ("done", "error", "cancelled")
            deployment.status = self.ends
            application.status = "done" if self.ends == "done" else "error"
            if self.ends == "done":
                application.running, application.runs = variables_in(application.env or ""), application.file
            else:
                deployment.error = self.says


_VARIABLE = re.compile(
    r"""^\s*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)"""
    r"""(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:#.*)?$""",
    re.MULTILINE | re.ASCII,
)


def variables_in(env: str) -> dict[str, str]:
    """What Dokploy reads of such a text: with the npm package dotenv 16.4.5, and not as a shell would."""
    found = {}
    for name, value in _VARIABLE.findall(re.sub(r"\r\n?", "\n", env)):
        value = value.strip()
        mark = value[:1]
        plain = re.sub(r"""\A(['"`])(.*)\1\Z""", r"\2", value, flags=re.DOTALL)
        found[name] = plain.replace("\\n", "\n").replace("\\r", "\r") if mark == '"' else plain
    return found


def _invalid(name: str, given: Any) -> Fault | None:
    known = FIELDS[name]
    if not isinstance(given, dict) or not given.get("composeId"):
        return _error(400, "BAD_REQUEST", "Input validation failed")
    for field_name, value in given.items():
        if field_name not in known or not isinstance(value, known[field_name]):
            return _error(400, "BAD_REQUEST", "Input validation failed")
    if given.get("sourceType", "raw") not in SOURCES:
        return _error(400, "BAD_REQUEST", "Input validation failed")
    return None


def _error(status: int, code: str, message: str) -> Fault:
    return Fault(status, body=json.dumps({"message": message, "code": code}).encode())


def _json(document: Any) -> Fault:
    return Fault(200, body=json.dumps(document).encode())


class _Handler(DoubleHandler):
    def _serve(self) -> None:
        body = self.read_json(None)
        answer = self.server.double.answer(self.command, self.path, self.headers.get("x-api-key", ""), body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = _serve
