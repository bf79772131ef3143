"""What the tests of bad input share: a small released application, its spec, and what was done with it.

Two services of one environment, `api` and `database`, which uses a secret source. Their deploy task writes
the tag it ran with to a file, so that every deploy leaves a trace.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble
from tests.vault import vault, vault_environment
from tests.world import Ran, World, make_world

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    with (Path({deployed!r}) / os.environ["TRUEUP_SERVICE"]).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")

@task
def broken(c):
    print("the password is", os.environ["DB_PASSWORD"])
    raise SystemExit(7)

@task
def hold(c):
    (Path({deployed!r}).parent / "held").open("rb").read()
"""

# In full: tests name its lines, and change them.
HEAD = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging:
    release: {{from: main, cut: external}}
secret_sources:
  local: {{kind: env_file, file: "{env_file}"}}
"""

SERVICES = """\
services:
  database:
    repository: app
    paths: ["database/**"]
    secrets: [{source: local, keys: [DB_PASSWORD]}]
    deploy: {kind: invoke, task: deploy}
    environments: [staging]
  api:
    repository: app
    paths: ["api/**"]
    deploy: {kind: invoke, task: deploy}
    environments: [staging]
"""

API, DATABASE = "services/staging/api", "services/staging/database"
BOTH = {"api": ["v1.0.0"], "database": ["v1.0.0"]}
"""What `deployed` gives after one pass in which all went well."""


@dataclass
class Case:
    """A world with the application released as v1.0.0; no spec is committed yet."""

    world: World
    relay: str
    """Where agents reach the primary."""
    env_file: Path
    head: str
    """The spec up to its services."""

    @property
    def good(self) -> str:
        return self.head + SERVICES

    def commit(self, text: str) -> str:
        return self.world.commit_spec(text)

    async def reconcile(self, *arguments: str, expect: int, **environment: str) -> Ran:
        """One pass for machines: a document on standard output, everything for people on standard error."""
        return checked(
            await self.world.trueup("reconcile", "-o", "json", *arguments, expect=expect, **environment)
        )

    async def plan(self, *arguments: str, expect: int, **environment: str) -> Ran:
        return checked(
            await self.world.trueup("plan", "-o", "json", *arguments, expect=expect, **environment)
        )

    async def deploy_all(self) -> None:
        """A good spec and a pass that deploys all of it."""
        self.commit(self.good)
        await self.reconcile(expect=0)
        assert self.deployed() == BOTH

    def release(self, tag: str) -> str:
        """A tag on a new commit that changes both services."""
        commit = self.world.app.commit({"database/compose.yaml": tag, "api/compose.yaml": tag})
        self.world.app.tag(tag)
        return commit

    def deployed(self) -> dict[str, list[str]]:
        """By service: the tag of each of its deploys, the oldest first."""
        return {path.name: path.read_text().splitlines() for path in sorted(self.world.deployed.iterdir())}

    def status(self, id: str) -> dict[str, Any]:
        document = yaml.safe_load(self.world.spec.read(f"{id}.yaml", "refs/heads/trueup/status"))
        assert isinstance(document, dict)
        return document

    def ready(self, id: str) -> tuple[str, str, str]:
        """Status, reason and message of the resource's condition Ready."""
        condition = next(each for each in self.status(id)["conditions"] if each["type"] == "Ready")
        return condition["status"], condition["reason"], condition.get("message", "")


@asynccontextmanager
async def make_case(root: Path) -> AsyncIterator[Case]:
    async with make_world(root) as (world, relay):
        env_file = may_hold(root / "local.env")
        env_file.write_text(f"DB_PASSWORD={canary('db-password')}\n")
        env_file.chmod(0o600)
        world.app.commit(
            {
                "tasks.py": TASKS.format(deployed=str(world.deployed)),
                "database/compose.yaml": "one\n",
                "api/compose.yaml": "one\n",
                "site/index.html": "<h1>hello</h1>\n",
            }
        )
        world.app.tag("v1.0.0")
        head = HEAD.format(app=world.app.url, env_file=env_file)
        yield Case(world, relay.address, env_file, head)


def use_vault(case: Case, double: InfisicalDouble, *, cache_ttl: str = "5m") -> None:
    """A good spec whose service `database` takes its password from Infisical."""
    case.world.environment |= vault_environment(double)
    case.head += f"{vault(double, cache_ttl=cache_ttl)}\n"
    case.commit(case.good.replace("source: local", "source: vault"))


_LOGGED = re.compile(r"\d{4}-\d{2}-\d{2}T\S+ \[")


def errors(ran: Ran) -> list[str]:
    """The lines for people on standard error, without those of the log."""
    return [line for line in ran.stderr.splitlines() if line and not _LOGGED.match(line)]


def error(ran: Ran) -> str:
    """The one line that says what is wrong."""
    [line] = errors(ran)
    return line


def checked(ran: Ran) -> Ran:
    """Bad input is never answered with a traceback, nor called a bug of trueup."""
    for text in (ran.stdout, ran.stderr):
        assert "Traceback" not in text
        assert "internal error" not in text
    return ran
