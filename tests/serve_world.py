"""A small world for a running primary: two services, a secret of Infisical, and deploys to be held up."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.serving import Serving
from tests.specs import STAGING
from tests.vault import vault, vault_environment
from tests.world import PATIENCE, World

SPEC = (
    STAGING
    + """\
secret_sources:
{vault}
services:
  database:
    repository: app
    paths: ["database/**", tasks.py]
    secrets: [{{source: vault, keys: [DB_PASSWORD]}}]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
  api:
    repository: app
    paths: ["api/**"]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
"""
)

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    name = os.environ["TRUEUP_SERVICE"]
    held = Path({root!r}, "hold-" + name)
    if held.exists():
        held.read_bytes()
    with (Path({root!r}) / name).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
"""

SYNCED = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
projects:
  site:
    repository: app
    branch: main
    path: api
    sync:
      nodes: [{{labels: {{group: web}}, target_path: "{target}"}}]
nodes: {{}}
"""

DAY = "24h"
"""An interval after which no test is still there."""

HEALTHY = {"status": "ok", "live": True, "ready": True, "role": "leader"}
"""What `/health` says of one that leads."""


def fill(world: World, double: InfisicalDouble, *, ttl: str = "1h", refresh: str = "0s") -> None:
    """A first release of both services, the secret, and the spec."""
    double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("first")}
    world.environment |= {**vault_environment(double), "TRUEUP_INTERVAL": DAY}
    world.app.commit(
        {
            "tasks.py": TASKS.format(root=str(world.deployed)),
            "database/compose.yaml": "one\n",
            "api/compose.yaml": "one\n",
        }
    )
    world.app.tag("v1.0.0")
    source = vault(double, cache_ttl=ttl, refresh_interval=refresh)
    world.commit_spec(SPEC.format(app=world.app.url, vault=source))


def deploys(world: World, service: str) -> list[str]:
    """The tag of each, in order."""
    log = world.deployed / service
    return log.read_text().splitlines() if log.exists() else []


async def applied(primary: Serving, service: str, after: int = 0) -> None:
    """Once a step of the service was applied since `after`, and its pass has ended."""
    await primary.applied(after=after, resource=f"services/staging/{service}")


async def reader_of(fifo: Path) -> int:
    """Once somebody reads the pipe: its end to write, whose closing lets that one go on."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(os.open, fifo, os.O_WRONLY, abandon_on_cancel=True)
