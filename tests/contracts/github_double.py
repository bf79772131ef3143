"""A stand-in for GitHub's REST API on loopback: secrets of Actions, dispatches, their workflow, and faults.

As at GitHub, values can be written and never read through the API; `double.opened(place)` opens what was
sealed with the double's own key. Times move on with each write, in whole seconds. A dispatch does what
`examples/github/export-secret.yml` does, after as many further list requests as `export_after` says. It
keeps everything in memory and prints nothing; its log of requests holds no values, tokens or bodies.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from nacl.public import PrivateKey, SealedBox

from tests.canaries import canary
from tests.contracts.http_double import DoubleHandler, HttpDouble

Kind = Literal[
    "list", "inherited", "key", "put", "delete", "dispatch", "repository", "status", "release", "find", "ref"
]

_REPO = r"/repos/(?P<repo>[^/]+/[^/]+)"
_PLACES = (
    rf"{_REPO}/actions/secrets",
    rf"{_REPO}/environments/(?P<environment>[^/]+)/secrets",
    r"/orgs/(?P<org>[^/]+)/actions/secrets",
)
_IN_A_PLACE: tuple[tuple[str, Kind, str], ...] = (
    ("GET", "key", "/public-key"),
    ("GET", "list", ""),
    ("PUT", "put", r"/(?P<name>[^/]+)"),
    ("DELETE", "delete", r"/(?P<name>[^/]+)"),
)
_ROUTES: tuple[tuple[str, Kind, str], ...] = (
    ("GET", "inherited", rf"{_REPO}/actions/organization-secrets"),
    *((method, kind, place + tail) for place in _PLACES for method, kind, tail in _IN_A_PLACE),
    ("POST", "dispatch", rf"{_REPO}/dispatches"),
    ("POST", "status", rf"{_REPO}/statuses/(?P<name>[0-9a-f]{{40}})"),
    ("POST", "release", rf"{_REPO}/releases"),
    ("GET", "find", rf"{_REPO}/releases/tags/(?P<name>[^/]+)"),
    ("GET", "ref", rf"{_REPO}/git/ref/tags/(?P<name>.+)"),
    ("GET", "repository", _REPO),
)
_NAME = re.compile(r"(?!GITHUB_)[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class Fault:
    """An answer in place of the right one. `hold`: it waits for `release`, and nothing is done even then."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"message": "no", "documentation_url": "https://docs.github.com/rest"}'
    hold: bool = False


def slow_down(seconds: int, status: int = 403) -> Fault:
    """A secondary rate limit."""
    return Fault(status, (("Retry-After", str(seconds)),))


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    kind: Kind | None
    name: str = ""


@dataclass
class Stored:
    """One secret as GitHub has it."""

    sealed: str
    number: int
    visibility: str | None = None
    repositories: tuple[int, ...] = ()

    @property
    def updated_at(self) -> str:
        return f"2026-01-01T{self.number // 3600:02}:{self.number // 60 % 60:02}:{self.number % 60:02}Z"


@dataclass
class Dispatched:
    """A dispatch that arrived."""

    repo: str
    event_type: str
    payload: dict[str, Any] = field(repr=False)


class GitHubDouble(HttpDouble):
    """`with GitHubDouble() as double:` serves at `double.url` until the end of the block.

    Places are `owner/repo`, `owner/repo#environment` or `org`. `double.places[place]` holds the secrets by
    name; a repository or environment that is not a key does not exist.
    """

    def __init__(self) -> None:
        self.token = canary("github-token")
        self.places: dict[str, dict[str, Stored]] = {}
        self.ids: dict[str, int] = {}
        self.requests: list[Request] = []
        self.dispatches: list[Dispatched] = []
        self.workflows: set[str] = set()
        """Repositories with the export workflow."""
        self.tags: dict[str, set[str]] = {}
        """By repository."""
        self.statuses: list[tuple[str, str, dict[str, Any]]] = []
        """Repository, commit, and what was said of it, the oldest first."""
        self.releases: dict[str, dict[str, dict[str, Any]]] = {}
        """By repository and tag."""
        self.export_after = 0
        """List requests that still find nothing after a dispatch."""
        self.fail_after_dispatch: list[Fault] = []
        """Answers to the list requests that come next after a dispatch."""
        self._private = PrivateKey.generate()
        self._faults: list[tuple[Kind, str | None, Fault]] = []
        self._pending: list[tuple[int, Dispatched]] = []
        self._clock = 0
        self._lock = threading.Lock()
        self.dispatched = threading.Event()
        """Set once a dispatch has arrived."""
        self.holding = threading.Event()
        """Set while an answer is held."""
        super().__init__(_Handler)

    # --- what a test does to it ----------------------------------------------------------------

    def add(self, *places: str) -> None:
        for place in places:
            self.places.setdefault(place, {})
            if "/" in place and "#" not in place:
                self.ids.setdefault(place, 1000 + len(self.ids))

    def store(self, place: str, **values: str) -> None:
        """Secrets that somebody else put there."""
        self.add(place)
        for name, value in values.items():
            sealed = SealedBox(self._private.public_key).encrypt(value.encode())
            self._write(place, name, base64.b64encode(sealed).decode())

    def opened(self, place: str) -> dict[str, str]:
        """The values of a place, which GitHub itself hands to workflows alone."""
        box = SealedBox(self._private)
        return {
            name: box.decrypt(base64.b64decode(stored.sealed)).decode()
            for name, stored in sorted(self.places[place].items())
        }

    def fail_with(
        self, fault: Fault, *, on: Kind, times: int = 1, place: str | None = None, name: str | None = None
    ) -> None:
        """The next requests of that kind, of one repository or one secret where those say so, get this."""
        with self._lock:
            self._faults += [(on, place or name, fault)] * times

    def recover(self) -> None:
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        self._released.set()

    def writes(self) -> list[str]:
        """The names that were written or deleted, in order."""
        return [request.name for request in self.requests if request.kind in ("put", "delete")]

    # --- what it answers -----------------------------------------------------------------------

    def answer(self, method: str, target: str, token: str, body: dict[str, Any]) -> Fault:
        parts = urlsplit(target)
        kind, found = _route(method, parts.path)
        with self._lock:
            self.requests.append(Request(method, parts.path, kind, found.get("name", "")))
            about = (None, found.get("repo"), found.get("name"))
            fault = next((each for each in self._faults if each[0] == kind and each[1] in about), None)
            if fault is not None:
                self._faults.remove(fault)
        if fault is not None:
            if fault[2].hold:
                self._wait()
            return fault[2]
        if token != self.token:
            return Fault(401)
        with self._lock:
            return Fault(404) if kind is None else self._right(kind, found, parse_qs(parts.query), body)

    def _wait(self) -> None:
        self.holding.set()
        self._released.wait()

    def _right(self, kind: Kind, found: dict[str, str], query: dict[str, list[str]], body: Any) -> Fault:
        repo = found.get("repo", "")
        if kind == "dispatch":
            return self._dispatch(repo, body)
        if kind == "repository":
            return _json({"id": self.ids[repo], "full_name": repo}) if repo in self.ids else Fault(404)
        if kind in ("status", "release", "find", "ref"):
            return self._about_releases(kind, repo, found.get("name", ""), body)
        if kind == "inherited":
            return self._list(self._inherited(repo), query) if repo in self.places else Fault(404)
        place = found.get("org") or (f"{repo}#{found['environment']}" if "environment" in found else repo)
        if place not in self.places:
            return Fault(404)
        match kind:
            case "list":
                self._run_exports()
                return self._list(self.places[place], query)
            case "key":
                key = base64.b64encode(bytes(self._private.public_key)).decode()
                return _json({"key_id": "key-1", "key": key})
            case "put":
                return self._put(place, found["name"], body)
            case _:
                return Fault(204, body=b"") if self.places[place].pop(found["name"], None) else Fault(404)

    def _about_releases(self, kind: Kind, repo: str, name: str, body: dict[str, Any]) -> Fault:
        if repo not in self.ids:
            return Fault(404)
        made = self.releases.setdefault(repo, {})
        match kind:
            case "status":
                states = ("pending", "success", "failure", "error")
                if body.get("state") not in states or len(body.get("description", "")) > 140:
                    return Fault(422)
                self.statuses.append((repo, name, body))
                return _created({"id": len(self.statuses), "state": body["state"]})
            case "find":
                return _json(made[name]) if name in made else Fault(404)
            case "ref":
                return _json({"ref": f"refs/tags/{name}"}) if name in self.tags.get(repo, ()) else Fault(404)
            case _:
                tag = str(body.get("tag_name", ""))
                if not tag or tag in made:
                    return Fault(422)
                made[tag] = body
                self.tags.setdefault(repo, set()).add(tag)  # which it makes where there is none
                return _created({"id": len(made), "tag_name": tag})

    def _inherited(self, repo: str) -> dict[str, Stored]:
        org = repo.partition("/")[0]
        return {
            name: stored
            for name, stored in self.places.get(org, {}).items()
            if stored.visibility in (None, "all", "private") or self.ids[repo] in stored.repositories
        }

    def _list(self, secrets: dict[str, Stored], query: dict[str, list[str]]) -> Fault:
        size, page = (
            int(query.get(name, [default])[0]) for name, default in (("per_page", "30"), ("page", "1"))
        )
        shown = sorted(secrets.items())[size * (page - 1) : size * page]
        listed = []
        for name, stored in shown:
            each = {"name": name, "created_at": stored.updated_at, "updated_at": stored.updated_at}
            listed.append(each | ({"visibility": stored.visibility} if stored.visibility else {}))
        return _json({"total_count": len(secrets), "secrets": listed})

    def _put(self, place: str, name: str, body: dict[str, Any]) -> Fault:
        name = name.upper()
        if not _NAME.fullmatch(name) or body.get("key_id") != "key-1":
            return Fault(422)
        if "/" not in place and body.get("visibility") not in ("all", "private", "selected"):
            return Fault(422)
        created = name not in self.places[place]
        self._write(place, name, body["encrypted_value"])
        stored = self.places[place][name]
        stored.visibility = body.get("visibility")
        stored.repositories = tuple(body.get("selected_repository_ids", ()))
        return Fault(201 if created else 204, body=b"{}" if created else b"")

    def _write(self, place: str, name: str, sealed: str) -> None:
        self._clock += 1
        self.places[place][name] = Stored(sealed, self._clock)

    def _dispatch(self, repo: str, body: dict[str, Any]) -> Fault:
        payload = body.get("client_payload", {})
        if repo not in self.places or (repo not in self.workflows and not payload):
            return Fault(404)
        if len(payload) > 10:
            return Fault(422)
        event = Dispatched(repo, str(body.get("event_type")), payload)
        self.dispatches.append(event)
        self.dispatched.set()
        self._faults += [("list", None, fault) for fault in self.fail_after_dispatch]
        self._pending.append((self.export_after, event))
        return Fault(204, body=b"")

    def _run_exports(self) -> None:
        """What the workflow of the source repository has done by now."""
        waiting, self._pending = self._pending, []
        for left, event in waiting:
            if left > 0:
                self._pending.append((left - 1, event))
                continue
            names = event.payload.get("secret_names") or [event.payload.get("secret_name")]
            renamed = event.payload.get("target_names", {})
            target = event.payload.get("target_repo", "")
            if event.payload.get("target_environment"):
                target += f"#{event.payload['target_environment']}"
            if event.repo not in self.workflows or target not in self.places:
                continue
            environment = f"{event.repo}#{event.payload.get('source_environment', '')}"
            secrets = self._inherited(event.repo) | self.places[event.repo] | self.places.get(environment, {})
            for name in names:
                if name in secrets:
                    self._write(target, renamed.get(name, name), secrets[name].sealed)


def _route(method: str, path: str) -> tuple[Kind | None, dict[str, str]]:
    for wanted, kind, pattern in _ROUTES:
        match = re.fullmatch(pattern, path)
        if wanted == method and match:
            return kind, {
                key: unquote(value) for key, value in match.groupdict().items() if value is not None
            }
    return None, {}


def _json(document: dict[str, Any]) -> Fault:
    return Fault(200, body=json.dumps(document).encode())


def _created(document: dict[str, Any]) -> Fault:
    return Fault(201, body=json.dumps(document).encode())


class _Handler(DoubleHandler):
    def _serve(self) -> None:
        body = self.read_json({})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").removeprefix("token ")
        answer = self.server.double.answer(self.command, self.path, token, body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        for name, value in answer.headers:
            self.send_header(name, value)
        content = b"" if answer.status == 204 else answer.body
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = _serve
