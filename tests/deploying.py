"""A small world with a staging and a production environment, whose primary takes requests for deploys."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.world import PATIENCE, World, make_world

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    name = os.environ["TRUEUP_SERVICE"] + "-" + os.environ["TRUEUP_ENVIRONMENT"]
    with (Path({deployed!r}) / name).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
    if Path("broken").exists():
        raise SystemExit(3)
"""

SPEC = (
    STAGING
    + """\
  production: {{release: {{promote_from: staging, bump: minor}}}}
services:
  web:
    repository: app
    paths: ["web/**"]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging, production]
"""
)

_NONCES = itertools.count(1)


@dataclass
class Deploying:
    world: World
    primary: Serving
    secret: str = field(repr=False)

    def release(
        self,
        tag: str,
        *,
        branch: str = "main",
        start: str | None = None,
        broken: bool = False,
        environment: str = "staging",
    ) -> str:
        """A commit that changes the service, and its tag."""
        files: dict[str, Any] = {"web/compose.yaml": tag, "broken": "x" if broken else None}
        commit = self.world.app.commit(files, branch=branch, start=start)
        self.world.app.tag(tag, commit, trailers={"Environment": environment} if environment else ())
        return commit

    def deployed(self, environment: str) -> list[str]:
        log = self.world.deployed / f"web-{environment}"
        return log.read_text().splitlines() if log.exists() else []

    def records(self) -> list[str]:
        """The operators' records, as text."""
        try:
            files = self.world.spec.files("refs/heads/trueup/control")
        except Exception:
            return []
        return [content.decode() for _, content in sorted(files.items())]

    async def send(self, body: bytes, *, secret: str | None = None) -> httpx.Response:
        digest = hmac.new((secret or self.secret).encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={digest}"}
        return await self.primary.ask("POST", "/deploy", content=body, headers=headers)

    async def ask(self, env: str, tag: str, *, once: bool = True, **more: Any) -> httpx.Response:
        """A request of the workflow; not `once`: in the form of older ones, without time and nonce."""
        return await self.send(body_of(env, tag, once=once, **more))

    async def end_of(self, answer: httpx.Response) -> dict[str, Any]:
        """What became of a request, once that is known."""
        assert answer.status_code == 202, answer.text
        with trio.fail_after(PATIENCE):
            while True:
                seen = len(self.primary.lines)
                found = await self.primary.ask("GET", answer.json()["url"])
                assert found.status_code == 200, found.text
                state: dict[str, Any] = found.json()
                if state["state"] != "pending":
                    return state
                await self.primary.said("pass ended", after=seen)


def body_of(env: str, tag: str, *, once: bool = True, **more: Any) -> bytes:
    content: dict[str, Any] = {"env": env, "tag": tag, "triggered_by": "octocat", **more}
    if once:
        content |= {"requested_at": int(time.time()), "nonce": f"nonce-{next(_NONCES):06}"}
    return json.dumps(content).encode()


@asynccontextmanager
async def deploying(root: Path, secret: str, **environment: str) -> AsyncIterator[Deploying]:
    """v1.0.0 runs in staging, nothing in production."""
    async with make_world(root) as (world, _):
        tasks = TASKS.format(deployed=str(world.deployed))
        world.app.commit({"tasks.py": tasks, "web/compose.yaml": "one\n"})
        world.app.tag("v1.0.0", trailers={"Environment": "staging"})
        world.commit_spec(SPEC.format(app=world.app.url))
        settings = {"DEPLOY_SECRET": secret, "TRUEUP_INTERVAL": "1h", **environment}
        async with serving(world, **settings) as primary:
            await primary.said("pass ended")
            yield Deploying(world, primary, secret)
