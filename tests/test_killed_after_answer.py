"""A primary that is killed by SIGKILL as soon as its 202 was read: the next one does it, once and no more.

What is answered is a delivery of GitHub, one of Infisical, and a request for a deploy. The one of Infisical
shows most: without it the next primary would find its sealed copy of the secret, take it for fresh, and do
nothing.
"""

import hashlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.deploying import body_of
from tests.github_deliveries import headers_of, payload, signature
from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.vault import vault, vault_environment
from tests.world import World, make_world

SPEC = (
    STAGING
    + """\
  production: {{release: {{promote_from: staging, bump: minor}}}}
secret_sources:
{vault}
services:
  web:
    repository: app
    paths: ["web/**"]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging, production]
  database:
    repository: app
    paths: ["database/**"]
    secrets: [{{source: vault, keys: [DB_PASSWORD]}}]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
"""
)

TASKS = """\
import hashlib, os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    held = Path({root!r}, "hold")
    if held.exists():
        held.read_bytes()
    known = hashlib.sha256(os.environ.get("DB_PASSWORD", "").encode()).hexdigest()[:8]
    name = os.environ["TRUEUP_SERVICE"] + "-" + os.environ["TRUEUP_ENVIRONMENT"]
    with (Path({root!r}) / name).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + " " + known + "\\n")
"""

GITHUB, INFISICAL, DEPLOY = canary("kill-github"), canary("kill-infisical"), canary("kill-deploy")
SETTINGS = {
    "WEBHOOK_SECRET": GITHUB,
    "INFISICAL_WEBHOOK_SECRET": INFISICAL,
    "DEPLOY_SECRET": DEPLOY,
    "TRUEUP_SECRET_CACHE": "disk",
    "TRUEUP_INTERVAL": "24h",
}

WEB, WEB_LIVE, DATABASE = "web-staging", "web-production", "database-staging"


@dataclass(frozen=True)
class Told:
    """What a primary is told over HTTP."""

    path: str
    body: bytes
    headers: dict[str, str] = field(repr=False)


@dataclass
class Killing:
    """A world whose primary is killed again and again."""

    world: World
    double: InfisicalDouble
    expected: dict[str, list[str]] = field(default_factory=dict)
    """By service, the deploys that there have to be; no others."""

    @asynccontextmanager
    async def primary(self) -> AsyncIterator[Serving]:
        async with serving(self.world, options=["-v"], **SETTINGS) as primary:
            await primary.looked()
            yield primary

    @property
    def deployed(self) -> dict[str, list[str]]:
        return {path.name: path.read_text().splitlines() for path in self.world.deployed.iterdir()}

    def set_password(self, name: str) -> None:
        self.double.secrets[self.double.project, "staging", "/"] = {"DB_PASSWORD": canary(name)}

    async def killed_after(self, primary: Serving, told: Told, change: Callable[[], object]) -> None:
        """A primary is told of a change, and killed right after it has answered.

        However far it gets until the signal comes: a deploy waits for somebody to write to the pipe.
        """
        assert self.deployed == self.expected
        change()
        held = self.world.deployed / "hold"
        os.mkfifo(held)
        answer = await primary.ask("POST", told.path, content=told.body, headers=told.headers)
        primary.process.kill()
        assert answer.status_code == 202, answer.text
        assert await primary.process.wait() == -signal.SIGKILL
        held.unlink()
        assert self.deployed == self.expected

    async def done(self, primary: Serving, told: Told) -> None:
        """The next primary has done it, and whoever sends the same to it again changes nothing."""
        await primary.until(lambda: {} if self.deployed == self.expected else None, str(self.expected))
        for _ in range(2):
            answer = await primary.ask("POST", told.path, content=told.body, headers=told.headers)
            assert answer.status_code == 202
        await primary.look()
        assert self.deployed == self.expected

    def kept(self) -> list[tuple[str, int, int]]:
        """What each delivery in the journal was, how often it came again, and whether it was acted on."""
        with closing(sqlite3.connect(self.world.state / "journal.sqlite")) as journal:
            rows = journal.execute(
                "SELECT kind, repeats, acted_at != '' FROM deliveries WHERE kind != 'PassAsked' ORDER BY id"
            ).fetchall()
        return [(str(kind), int(repeats), int(acted)) for kind, repeats, acted in rows]


def known(name: str) -> str:
    return hashlib.sha256(canary(name).encode()).hexdigest()[:8]


NONE = hashlib.sha256(b"").hexdigest()[:8]


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


def of_a_push(tag: str) -> Told:
    body = payload("push", repository="org/app", ref=f"refs/tags/{tag}")
    return Told("/webhook", body, headers_of(body, GITHUB, "push"))


def of_a_secret(double: InfisicalDouble) -> Told:
    now = time.time_ns() // 1_000_000
    project = {"workspaceId": double.project, "environment": "staging", "secretPath": "/"}
    body = json.dumps({"event": "secrets.modified", "project": project, "timestamp": now}).encode()
    return Told("/webhook", body, {"x-infisical-signature": f"t={now};{signature(body, INFISICAL)}"})


def of_a_promotion(tag: str) -> Told:
    body = body_of("production", tag)
    return Told("/deploy", body, {"X-Hub-Signature-256": f"sha256={signature(body, DEPLOY)}"})


async def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_world(tmp_path) as (world, _):
        it = Killing(world, double)
        world.environment |= vault_environment(double)
        it.set_password("kill-0")
        files = {"web/compose.yaml": "0\n", "database/compose.yaml": "0\n"}
        world.app.commit({"tasks.py": TASKS.format(root=str(world.deployed)), **files})
        world.app.tag("v1.0.0", trailers={"Environment": "staging"})
        source = vault(double, cache_ttl="1h", refresh_interval="0s")
        world.commit_spec(SPEC.format(app=world.app.url, vault=source))
        async with it.primary() as primary:
            await primary.until(lambda: {} if len(it.deployed) == 2 else None, "the first deploys")
            assert await primary.end() == 0
        it.expected = {WEB: [f"v1.0.0 {NONE}"], DATABASE: [f"v1.0.0 {known('kill-0')}"]}
        assert it.deployed == it.expected

        told: Told | None = None
        for number in (1, 2):
            tag = f"v1.0.{number}"

            def push(number: int = number, tag: str = tag) -> None:
                world.app.commit({"web/compose.yaml": f"{number}\n"})
                world.app.tag(tag, trailers={"Environment": "staging"})

            rounds = (
                (of_a_push(tag), push, WEB, f"{tag} {NONE}"),
                (
                    of_a_secret(double),
                    partial(it.set_password, f"kill-{number}"),
                    DATABASE,
                    f"{tag} {known(f'kill-{number}')}",
                ),
                (of_a_promotion(tag), lambda: None, WEB_LIVE, f"v1.{number}.0 {NONE}"),
            )
            for telling, change, service, line in rounds:
                async with it.primary() as primary:
                    if told is not None:
                        await it.done(primary, told)
                    await it.killed_after(primary, told := telling, change)
                it.expected.setdefault(service, []).append(line)
        assert told is not None
        async with it.primary() as primary:
            await it.done(primary, told)
            assert await primary.end() == 0
        # And the end of it is in the status branch.
        assert (await world.reconcile())["steps"] == []

        assert it.kept() == [("Pushed", 2, 1), ("SecretsModified", 2, 1)] * 2
        records = [yaml.safe_load(text) for _, text in sorted(world.spec.files("trueup/control").items())]
        assert [(each["kind"], each["tag"]) for each in records] == [
            ("promote", "v1.0.1"),
            ("promote", "v1.0.2"),
        ]
