"""Services deployed by a command on the nodes of their project: real agents, real commands, real files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.bad_world import Case, make_case
from tests.canaries import canary, may_hold
from tests.world import PATIENCE, Host

PASSWORD = canary("db-password")
SERVICE = "services/staging/web"

UP = """\
#!/bin/sh
printf '%s' "$DB_PASSWORD" > {root}/password
echo "$TRUEUP_PROJECT $LEVEL $(cat index.html)" >> {root}/ran
echo "the password is $DB_PASSWORD"
[ ! -p {root}/gate ] || cat {root}/gate
[ ! -e {root}/fail ] || exit 3
"""

SPEC = """\
services:
  web:
    repository: app
    paths: ["web/**"]
    environments: [staging]
    env: {{LEVEL: {level}}}
    secrets: [local]
    deploy: {{kind: agent, project: site, command: {command}, on_failure: {on_failure}, timeout: {timeout},
             remove_command: down}}
projects:
  site:
    repository: app
    environment: staging
    path: site
    sync:
      max_parallel_nodes: {parallel}
      retry: {{attempts: 1}}
      nodes:
{targets}
nodes:
{nodes}
"""


class Site:
    """A case with hosts, and the spec of its one service."""

    def __init__(self, case: Case, hosts: list[Host], nodes: str) -> None:
        self.case = case
        self.hosts = {host.node: host for host in hosts}
        self.agents: dict[str, trio.Process] = {}
        self._nodes = nodes

    def commit(self, **changes: Any) -> None:
        fields = {"level": "info", "command": "up", "on_failure": "stop", "timeout": "60s", "parallel": 1}
        targets = "\n".join(
            f'        - {{node_id: {node}, target_path: "{host.srv / "site"}"}}'
            for node, host in self.hosts.items()
        )
        self.case.commit(
            self.case.head + SPEC.format(**{**fields, **changes}, targets=targets, nodes=self._nodes)
        )

    def release(self, tag: str, files: dict[str, str]) -> None:
        self.case.world.app.commit(dict(files))
        self.case.world.app.tag(tag)

    def ran(self, node: str = "web-1") -> list[str]:
        path = self.hosts[node].root / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def forget_runs(self) -> None:
        for host in self.hosts.values():
            (host.root / "ran").unlink(missing_ok=True)

    def fails(self, node: str, fails: bool = True) -> None:
        path = self.hosts[node].root / "fail"
        path.touch() if fails else path.unlink()

    async def planned(self) -> list[tuple[str, str]]:
        document = (await self.case.plan(expect=0)).document
        return [(step["action"], step["reason"]) for step in document["steps"]]


@asynccontextmanager
async def make_site(tmp_path: Path, *names: str) -> AsyncIterator[Site]:
    """Hosts whose agents run and have the project, and on which the command ran once."""
    async with make_case(tmp_path) as case:
        case.world.app.commit({"web/compose.yaml": "one\n"})
        case.world.app.tag("v1.0.1")
        case.commit(case.head + "nodes: {}\n")
        hosts = []
        for name in names:
            host = await case.world.add_host(name, case.relay)
            script = host.root / "up.sh"
            script.write_text(UP.format(root=host.root))
            may_hold(host.root / "password")
            host.extra += ["--allow", f"up=sh {script}", "--allow", f"hang=cat {host.root / 'never'}"]
            os.mkfifo(host.root / "never")
            host.extra += ["--allow", f"down=sh -c 'cat index.html > {host.root / 'down'}'"]
            hosts.append(host)
        added = case.world.spec.read("trueup.yaml").decode()
        site = Site(case, hosts, added[added.index("nodes:") :].partition("\n")[2].rstrip())
        site.commit()
        agents: dict[str, trio.Process] = {}

        async def start(host: Host) -> None:
            agents[host.node] = await case.world.start_agent(host)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: case.reconcile("--wait-agents", "60s", expect=0))
            for host in hosts:
                nursery.start_soon(start, host)
        site.agents = agents
        assert {name: site.ran(name) for name in names} == {
            name: ["site info <h1>hello</h1>"] for name in names
        }
        yield site


async def test_a_command_runs_when_its_project_or_its_variables_changed(tmp_path: Path) -> None:
    async with make_site(tmp_path, "web-1") as site:
        case, host = site.case, site.hosts["web-1"]
        assert (host.root / "password").read_text() == PASSWORD
        assert case.ready(SERVICE)[0] == "True"
        assert await site.planned() == []
        assert (await case.reconcile(expect=0)).document["steps"] == []

        # Only the project's files changed.
        site.release("v1.1.0", {"site/index.html": "two\n"})
        assert await site.planned() == [
            ("sync", "changed: path site"),
            ("deploy", "changed: project site"),
        ]
        await case.reconcile(expect=0)
        assert site.ran()[1:] == ["site info two"]
        assert await site.planned() == []

        # Only a variable did, or a secret.
        site.commit(level="debug")
        assert await site.planned() == [("deploy", "changed: env LEVEL")]
        await case.reconcile(expect=0)
        case.env_file.write_text(f"DB_PASSWORD={canary('db-second')}\n")
        assert await site.planned() == [("deploy", "changed: secret DB_PASSWORD")]
        await case.reconcile(expect=0)
        assert site.ran()[2:] == ["site debug two"] * 2
        assert (host.root / "password").read_text() == canary("db-second")

        # Somebody changed a file on the host: it is put right, and the command runs again.
        (host.srv / "site/index.html").write_text("edited\n")
        await case.reconcile(expect=0)
        assert site.ran()[4:] == ["site debug two"]
        assert await site.planned() == []
        journal = await case.world.trueup("secrets", "audit", "-o", "json", expect=None)
        assert canary("db-second") not in journal.stdout + journal.stderr


async def test_what_goes_wrong_is_told_and_tried_again(tmp_path: Path) -> None:
    async with make_site(tmp_path, "web-1") as site:
        case = site.case
        site.forget_runs()
        # An exit code, and what was printed, without the secret.
        site.fails("web-1")
        site.commit(level="two")
        await case.reconcile(expect=4)
        status, reason, message = case.ready(SERVICE)
        assert (status, reason) == ("False", "DeployFailed")
        assert "'up' failed on web-1" in message
        assert "exit code 3" in message
        assert "the password is ***" in message
        site.fails("web-1", False)
        await case.reconcile(expect=0)
        assert site.ran() == ["site two <h1>hello</h1>"] * 2

        # A command that the host does not allow.
        site.commit(command="other")
        await case.reconcile(expect=4)
        assert case.ready(SERVICE)[:2] == ("False", "CommandNotAllowed")
        assert "'other'" in case.ready(SERVICE)[2]

        # One that does not end: it is stopped.
        site.commit(command="hang", timeout="300ms")
        await case.reconcile(expect=4)
        assert case.ready(SERVICE)[:2] == ("False", "Timeout")
        assert "stopped after 0.3 s" in case.ready(SERVICE)[2]

        # A variable that would change which program runs.
        site.commit(level="x, LD_PRELOAD: /srv/site/evil.so")
        await case.reconcile(expect=4)
        assert case.ready(SERVICE)[:2] == ("False", "VariableNotAllowed")
        assert "LD_PRELOAD" in case.ready(SERVICE)[2]

        site.commit()
        await case.reconcile(expect=0)
        assert case.ready(SERVICE)[0] == "True"


async def test_a_rollout_stops_or_goes_on_and_keeps_its_pace(tmp_path: Path) -> None:
    async with make_site(tmp_path, "web-1", "web-2", "web-3") as site:
        case = site.case
        # Stop: those that were not begun are left alone, and named.
        site.forget_runs()
        site.fails("web-2")
        site.commit(level="two")
        await case.reconcile(expect=4)
        assert [len(site.ran(node)) for node in site.hosts] == [1, 1, 0]
        assert "'up' failed on web-2, and was not begun on web-3" in case.ready(SERVICE)[2]

        # Continue: all are tried, and those that failed are named.
        site.forget_runs()
        site.fails("web-1")
        site.commit(level="two", on_failure="continue")
        await case.reconcile(expect=4)
        assert [len(site.ran(node)) for node in site.hosts] == [1, 1, 1]
        assert "'up' failed on web-1, web-2" in case.ready(SERVICE)[2]
        site.fails("web-1", False)
        site.fails("web-2", False)

        # Two at a time: the third begins when one of them has ended.
        site.forget_runs()
        for host in site.hosts.values():
            os.mkfifo(host.root / "gate")
        site.commit(level="three", parallel=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: case.reconcile(expect=0))
            first, second = await opened(site, "web-1"), await opened(site, "web-2")
            assert site.ran("web-3") == []
            os.close(second)
            third = await opened(site, "web-3")
            os.close(first)
            os.close(third)
        assert [len(site.ran(node)) for node in site.hosts] == [1, 1, 1]


async def opened(site: Site, node: str) -> int:
    """Waits until the command on a node is under way, which then waits until this is closed."""
    gate = site.hosts[node].root / "gate"
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(os.open, gate, os.O_WRONLY, abandon_on_cancel=True)


async def test_a_node_that_is_away_is_the_service_s_own_trouble(tmp_path: Path) -> None:
    async with make_site(tmp_path, "web-1", "web-2") as site:
        case = site.case
        site.forget_runs()
        away = site.agents["web-2"]
        away.terminate()
        await away.wait()
        # Stop: as it is known beforehand, no node is touched.
        site.commit(level="two")
        await case.reconcile("--wait-agents", "2s", expect=4)
        assert case.ready(SERVICE)[:2] == ("False", "AgentUnreachable")
        assert "web-2" in case.ready(SERVICE)[2]
        assert (site.ran("web-1"), site.ran("web-2")) == ([], [])
        # Continue: the others are deployed. The time is what web-1 has to be there.
        site.commit(level="two", on_failure="continue")
        await case.reconcile("--wait-agents", "20s", expect=4)
        assert case.ready(SERVICE)[:2] == ("False", "AgentUnreachable")
        assert (len(site.ran("web-1")), site.ran("web-2")) == (1, [])
        # It is back: all of them are.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: case.reconcile("--wait-agents", "60s", expect=0))
            nursery.start_soon(lambda: case.world.start_agent(site.hosts["web-2"], joined=True))
        assert site.ran("web-2") == ["site two <h1>hello</h1>"]


async def test_a_service_that_left_the_spec_is_taken_away_by_its_command(tmp_path: Path) -> None:
    async with make_site(tmp_path, "web-1", "web-2") as site:
        case = site.case
        text = case.world.spec.read("trueup.yaml").decode()
        case.commit(text[: text.index("services:")] + text[text.index("projects:") :])
        await case.reconcile("--wait-agents", "60s", expect=0)
        assert [(host.root / "down").read_text() for host in site.hosts.values()] == ["<h1>hello</h1>\n"] * 2
        assert f"{SERVICE}.yaml" not in case.world.status()
        assert (site.hosts["web-1"].srv / "site/index.html").exists()
