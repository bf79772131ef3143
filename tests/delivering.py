"""A primary in the test's own process that makes real passes; its webhook is asked without a network."""

from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from reconciler.primary import Primary, open_primary
from reconciler.runner import Runner
from reconciler.settings import Settings, load_settings
from reconciler.setup import make_key
from reconciler.web.app import local_app
from reconciler.web.guard import App
from tests.canaries import may_hold
from tests.gitrepo import GitRepo

SPEC = "version: 1\n"


@dataclass
class Place:
    """What outlives a primary: its state directory, and the repository of its spec."""

    root: Path
    spec: GitRepo
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, spec: str = SPEC, **environment: str) -> "Place":
        repository = GitRepo.create(root / "org" / "spec.git")
        repository.commit({"trueup.yaml": spec})
        place = cls(root, repository, environment)
        may_hold(root / "state/master.key")
        list(make_key(place.settings))
        return place

    @property
    def settings(self) -> Settings:
        return load_settings(
            {
                "HOME": str(self.root),
                "TRUEUP_SPEC_REPO": self.spec.url,
                "TRUEUP_STATE_DIR": str(self.root / "state"),
                "TRUEUP_ALLOW_LOCAL_REPOS": "1",
                "TRUEUP_INTERVAL": "24h",
                **self.environment,
            },
            root=False,
        )


@dataclass
class Delivering:
    """A running primary, and whoever sends something to it."""

    primary: Primary
    runner: Runner
    app: App
    client: httpx.AsyncClient

    async def deliver(self, request: Mapping[str, Any]) -> httpx.Response:
        return await self.client.post("/webhook", **request)

    async def status_of(self, request: Mapping[str, Any]) -> int:
        """Deliver as cheaply as can be, for those who deliver thousands; the status of the answer."""
        messages: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": request["content"], "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in request["headers"].items()]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/webhook", "query_string": b""}
        scope["headers"] = headers
        await self.app(scope, receive, send)
        status: int = messages[0]["status"]
        return status

    def passes(self) -> int:
        return len(self.primary.journal.passes(10_000))

    async def passes_reach(self, number: int) -> None:
        """Until so many passes have ended."""
        while sum(bool(each.ended_at) for each in self.primary.journal.passes(10_000)) < number:
            await self.primary.bulletin.wait_newer(self.primary.bulletin.version)


@asynccontextmanager
async def delivering(place: Place, *, passes: bool = True) -> AsyncIterator[Delivering]:
    """A primary on a place; without `passes` it takes deliveries and makes none."""
    async with open_primary(place.settings) as primary:
        runner = Runner(primary, draw=lambda: 0.5)
        app = local_app(runner)
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://primary") as client,
            trio.open_nursery() as nursery,
        ):
            if passes:
                nursery.start_soon(runner.run, trio.Event())
                nursery.start_soon(runner.act_on_deliveries)
            yield Delivering(primary, runner, app, client)
            nursery.cancel_scope.cancel()
