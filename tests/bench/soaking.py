"""A primary and its agents as real processes, kept at work, and what they hold meanwhile.

The work is what a day brings, in a hurry: every two seconds a pass that looks at every host, a scrape, and
somebody who reads the API; now and then a commit that is deployed and synced to each host, and the webhook
that tells of it; and secrets whose copies grow old.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent.node_token import NodeToken
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.github_deliveries import pushed
from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.vault import vault, vault_environment
from tests.world import PATIENCE, Host, World, make_world

ROOT = Path(__file__).parents[2]
INTERVAL = "2s"
COMMIT_EVERY = 10
"""Passes from one commit to the next."""
STARTING = 4
"""Agents that start at the same time."""
PASSES_AT_MOST = 60
"""Until a commit is on every host; two are enough, as long as no agent is away."""

SPEC = (
    STAGING
    + """\
secret_sources:
{vault}
services:
  api:
    repository: app
    paths: ["api/**"]
    secrets: [{{source: vault, keys: [DB_PASSWORD]}}]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      nodes:
{targets}
nodes:
{nodes}
"""
)

TASKS = """\
import os
from invoke import task

@task
def deploy(c):
    print("deployed", os.environ["TRUEUP_TAG"])
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds."""

    rss: int
    fds: int
    threads: int

    @classmethod
    def by(cls, pid: int) -> Held:
        proc = Path("/proc", str(pid))
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return cls(
            rss=int(status["VmRSS"].split()[0]) * 1024,
            fds=sum(not _is_of_checkout(fd) for fd in (proc / "fd").iterdir()),
            threads=int(status["Threads"]),
        )


def _is_of_checkout(fd: Path) -> bool:
    """A primary keeps the few checkouts that it synced last, each with a descriptor; commits bring them."""
    try:
        return "/checkouts/tree-" in str(fd.readlink())
    except OSError:
        return False  # it was closed meanwhile


@dataclass(frozen=True, slots=True)
class Sample:
    """Taken when a pass has ended. `agents` is the sum over all of them."""

    seconds: float
    primary: Held
    agents: Held
    journal: int


@dataclass
class Soak:
    """`samples`: one after each pass."""

    world: World
    primary: Serving
    hosts: list[Host]
    agents: list[trio.Process]
    webhook_secret: str
    samples: list[Sample] = field(default_factory=list)
    commits: int = 0

    async def keep_on(self, enough: Callable[[int, float], bool]) -> None:
        """Work until enough passes, or seconds, have gone by."""
        begin = time.monotonic()
        while not enough(len(self.samples), time.monotonic() - begin):
            number = len(self.samples) + 1
            if number % COMMIT_EVERY == 0:
                await self._commit()
            else:
                await self._look(number)
            await self._pass_ended()
            self.samples.append(self._sample(time.monotonic() - begin))

    async def _look(self, number: int) -> None:
        """What a monitoring system and a person ask for."""
        paths = ("/api/environments", "/api/sync/nodes", "/api/sync/tasks", "/api/secrets", "/api/plan")
        for path in ("/metrics", paths[number % len(paths)]):
            answer = await self.primary.ask_locally("GET", path)
            if answer.status_code != 200:
                raise RuntimeError(f"{path} was answered with {answer.status_code}: {answer.text[:200]}")

    async def _commit(self) -> None:
        """A release of the service and a page for each host; GitHub tells of it."""
        self.commits += 1
        files = {"api/compose.yaml": f"# {self.commits}\n", "site/index.html": f"page {self.commits}\n"}
        await trio.to_thread.run_sync(self.world.app.commit, files)
        await trio.to_thread.run_sync(self.world.app.tag, f"v1.0.{self.commits}")
        told = pushed("org/app", self.webhook_secret, after=f"{self.commits:040x}")
        answer = await self.primary.ask("POST", "/webhook", **told)
        if answer.status_code != 202:
            raise RuntimeError(f"the webhook was answered with {answer.status_code}")

    async def all_synced(self) -> None:
        """Let passes go by until every host has what was committed last."""
        page = f"page {self.commits}\n"
        for _ in range(PASSES_AT_MOST):
            if all(_page(host) == page for host in self.hosts):
                return
            await self._pass_ended()
        late = [host.node for host in self.hosts if _page(host) != page]
        raise RuntimeError(f"not synced: {', '.join(late)}")

    async def _pass_ended(self) -> None:
        """Forgets the log up to there: an hour of it would be all that is measured."""
        line = await self.primary.until(
            lambda: next((one for one in self.primary.lines if one["event"].startswith("pass ended")), None),
            "pass ended",
        )
        del self.primary.lines[: self.primary.lines.index(line) + 1]

    def _sample(self, seconds: float) -> Sample:
        agents = [Held.by(process.pid) for process in self.agents]
        return Sample(
            seconds=seconds,
            primary=Held.by(self.primary.process.pid),
            agents=Held(
                rss=sum(one.rss for one in agents),
                fds=sum(one.fds for one in agents),
                threads=sum(one.threads for one in agents),
            ),
            journal=sum(path.stat().st_size for path in self.world.state.glob("journal.sqlite*")),
        )


@asynccontextmanager
async def soaking(root: Path, *, agents: int) -> AsyncIterator[Soak]:
    """Everything running, the first sync of every host done."""
    secret = canary("soak-webhook")
    with InfisicalDouble() as double:
        async with make_world(root) as (world, _):
            hosts = _fill(world, double, agents, f"127.0.0.1:{world.port}")
            world.environment |= {"TRUEUP_INTERVAL": INTERVAL, "WEBHOOK_SECRET": secret}
            async with serving(world, options=["-v"]) as primary:
                processes: list[trio.Process] = []
                free = trio.CapacityLimiter(STARTING)

                async def start(host: Host) -> None:
                    async with free:
                        processes.append(await world.start_agent(host, joined=True))

                await _join_all(world, hosts)
                async with trio.open_nursery() as nursery:
                    for host in hosts:
                        nursery.start_soon(start, host)
                soak = Soak(world, primary, hosts, processes, secret)
                await soak.all_synced()
                yield soak
                await soak.all_synced()
                if await primary.end() != 0:
                    raise RuntimeError("the primary did not end well")


def _fill(world: World, double: InfisicalDouble, agents: int, primary: str) -> list[Host]:
    double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("soak-password")}
    world.environment |= vault_environment(double)
    files = {f"site/part-{number:02}.html": f"part {number}\n" * 200 for number in range(50)}
    world.app.commit({"tasks.py": TASKS, "api/compose.yaml": "# 0\n", "site/index.html": "page 0\n", **files})
    world.app.tag("v1.0.0")
    hosts, nodes = [], []
    for number in range(agents):
        node, token = f"web-{number:02}", NodeToken.generate()
        directory = world.root / "hosts" / node
        host = Host(node, directory, directory / "agent", directory / "agent.toml")
        host.join += ["join", "--primary", primary, "--node", node, "--token", token.to_text()]
        host.join += ["--root", str(host.srv), "--config", str(host.config), "--state-dir", str(host.state)]
        host.srv.mkdir(parents=True)
        hosts.append(host)
        nodes.append(f'  {node}: {{token_key: "{token.public_text}"}}')
    targets = [f'        - {{node_id: {host.node}, target_path: "{host.srv}/site"}}' for host in hosts]
    world.commit_spec(
        SPEC.format(
            app=world.app.url,
            vault=vault(double, cache_ttl="15s", refresh_interval="10s"),
            targets="\n".join(targets),
            nodes="\n".join(nodes),
        )
    )
    return hosts


async def _join_all(world: World, hosts: list[Host]) -> None:
    joins = json.dumps([host.join for host in hosts]).encode()
    with trio.fail_after(PATIENCE):
        await trio.run_process(
            [sys.executable, "-m", "tests.bench.joining"], stdin=joins, capture_stdout=True, cwd=ROOT
        )


def _page(host: Host) -> str | None:
    try:
        return (host.srv / "site" / "index.html").read_text()
    except FileNotFoundError:
        return None
