"""A service that is released to staging and promoted to production, and what there is to say of it.

Its deploy task writes down what it was given, and fails in production where the version is `broken`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.world import World, make_world

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging: {{release: {{from: main}}}}
  production: {{release: {{promote_from: staging{policy}}}, {rules}}}
services:
  web:
    repository: app
    paths: ["web/**", tasks.py]
    env: {{LEVEL: {level}}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging, production]
"""

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    place, tag = os.environ["TRUEUP_ENVIRONMENT"], os.environ["TRUEUP_TAG"]
    version = Path("web/version").read_text()
    with (Path({deployed!r}) / place).open("a") as log:
        log.write(f"{{tag}} {{version}} {{os.environ['LEVEL']}}\\n")
    if place == "production" and version == "broken":
        raise SystemExit(7)
"""


@dataclass
class Life:
    """Two environments, and what there is to say of them."""

    world: World
    policy: str = ""
    """More about production's releases, such as `, soak: 0s`."""
    rules: str = "spec_from: release, on_failure: rollback"
    level: str = "one"
    more: str = ""
    """Sections of the spec behind all others."""

    def merge_spec(self) -> str:
        text = SPEC.format(app=self.world.app.url, policy=self.policy, rules=self.rules, level=self.level)
        return self.world.commit_spec(text + self.more)

    def change(self, version: str, **options: Any) -> str:
        return self.world.app.commit({"web/version": version}, **options)

    def deploys(self, environment: str) -> list[str]:
        """Tag, version and setting of each deploy, the oldest first."""
        path = self.world.deployed / environment
        return path.read_text().splitlines() if path.exists() else []

    def tags(self) -> dict[str, str]:
        """Each tag and its commit."""
        app = self.world.app
        names = [ref.removeprefix("refs/tags/") for ref in app.refs() if ref.startswith("refs/tags/")]
        return {name: app.resolve(f"refs/tags/{name}^{{commit}}") or "" for name in names}

    def trailers(self, tag: str) -> dict[str, str]:
        """What an annotated tag says of itself; a lightweight one fails."""
        content = self.world.app.git("cat-file", "tag", f"refs/tags/{tag}")
        assert f"\ntag {tag}\n" in content
        said = self.world.app.git("for-each-ref", "--format=%(contents:trailers:only)", f"refs/tags/{tag}")
        return dict(line.split(": ", 1) for line in said.splitlines())

    def environment(self, name: str) -> dict[str, Any]:
        found = yaml.safe_load(self.world.status()[f"environments/{name}.yaml"])
        assert isinstance(found, dict)
        return found

    def runs(self, name: str) -> tuple[str, str, str, str]:
        """Tag, commit, kind and outcome of what an environment runs."""
        release = self.environment(name)["units"]["app"]["release"]
        return release["tag"], release["commit"], release.get("kind", "external"), release.get("outcome", "")

    def told(self, name: str) -> tuple[str, str, str]:
        """Status, reason and message of its condition Ready."""
        ready = next(each for each in self.environment(name)["conditions"] if each["type"] == "Ready")
        return ready["status"], ready["reason"], ready.get("message", "")

    def service(self, environment: str) -> dict[str, Any]:
        """The condition Ready of the service there."""
        found = yaml.safe_load(self.world.status()[f"services/{environment}/web.yaml"])
        ready = next(each for each in found["conditions"] if each["type"] == "Ready")
        assert isinstance(ready, dict)
        return ready

    async def promote(self, *options: str) -> None:
        await self.world.trueup("promote", "staging", "production", "--confirm", "deploy", *options)


@asynccontextmanager
async def begin_life(root: Path) -> AsyncIterator[Life]:
    """Its first commit and its spec are there, and nothing is released."""
    async with make_world(root) as (world, _):
        life = Life(world)
        world.app.commit({"tasks.py": TASKS.format(deployed=str(world.deployed)), "web/version": "0"})
        life.merge_spec()
        yield life
