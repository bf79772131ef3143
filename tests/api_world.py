"""A running primary whose API is open to tokens: two environments, a service, a project on a host."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.canaries import canary, may_hold
from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.world import Host, World, make_world

SPEC = (
    STAGING
    + """\
  production:
    release: {{promote_from: staging, approval: manual, soak: 1s}}
    windows: [{{allow: "Mon-Sun 00:00-24:00"}}]
secret_sources:
  local: {{kind: env_file, file: "{env_file}"}}
services:
  api:
    repository: app
    paths: ["api/**", tasks.py]
    secrets: [{{source: local, keys: [DB_PASSWORD]}}]
    env: {{LOG_LEVEL: info}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging, production]
projects:
  site:
    name: The site
    repository: app
    branch: main
    path: site
    sync:
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, mode: "0600", secrets: [local]}}
      after: [mark]
nodes: {{}}
"""
)

TASKS = """\
from invoke import task

@task
def deploy(c):
    print("deploying")
"""


@dataclass
class ApiWorld:
    world: World
    primary: Serving
    host: Host
    operator: str
    reader: str
    expired: str
    revoked: str
    tokens_file: Path

    async def ask(
        self, path: str, token: str | None = None, method: str = "GET", **options: Any
    ) -> httpx.Response:
        """One request over the network, with the reader's token if none is given; "" is none."""
        headers = {"Authorization": f"Bearer {self.reader if token is None else token}"}
        headers = {} if token == "" else headers
        return await self.primary.ask(method, path, headers=headers | options.pop("headers", {}), **options)

    async def get(self, path: str) -> Any:
        answered = await self.ask(path)
        assert answered.status_code == 200, (path, answered.text)
        return answered.json()


@asynccontextmanager
async def api_world(root: Path) -> AsyncIterator[ApiWorld]:
    async with make_world(root) as (world, relay):
        env_file = may_hold(root / "local.env")
        env_file.write_text(f"DB_PASSWORD={canary('api-db-password')}\n")
        env_file.chmod(0o600)
        tokens = root / "tokens"
        webhook_secret = may_hold(root / "webhook-secret")
        webhook_secret.write_text(canary("api-webhook-secret"))
        world.environment |= {
            "TRUEUP_INTERVAL": "24h",
            "TRUEUP_API_TOKENS_FILE": str(tokens),
            "TRUEUP_HTTP_HOSTS": "trueup.example",
            "TRUEUP_TRUSTED_PROXIES": "127.0.0.1",
            "WEBHOOK_SECRET_FILE": str(webhook_secret),
        }
        made = {}
        for name, *options in (
            ("operator", "--role", "operate"),
            ("reader", "--expires", "1h"),
            ("expired", "--role", "operate", "--expires", "1ms"),
            ("revoked", "--role", "operate"),
        ):
            made[name] = (await world.trueup("token", "new", name, *options)).stdout.strip()
        lines = tokens.read_text().splitlines(keepends=True)
        tokens.write_text("".join(line for line in lines if not line.startswith("revoked ")))
        world.app.commit(
            {"tasks.py": TASKS, "api/compose.yaml": "one\n", "site/index.html": "<h1>hello</h1>\n"}
        )
        world.app.tag("v1.0.0")
        target = root / "hosts" / "web-1" / "srv" / "site"
        text = SPEC.format(app=world.app.url, env_file=env_file, target=target)
        bare = text.replace(text[text.index("projects:") : text.index("nodes: {}")], "")
        world.commit_spec(bare)
        host = await world.add_host("web-1", relay.address, "group=web")
        host.extra += ["--allow", "mark=echo the mark was made"]
        may_hold(host.srv / "site" / ".env")
        with_node = world.spec.read("trueup.yaml").decode()
        nodes = with_node[with_node.index("nodes:") :]
        world.commit_spec(text.replace("nodes: {}\n", nodes))
        async with serving(world) as primary:
            await world.start_agent(host)
            await primary.applied(action="sync")
            yield ApiWorld(world, primary, host, tokens_file=tokens, **made)
