"""Writes through the API of a real primary with a real agent: commits of the caller, which act at once."""

import json
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import connect
from typing import Any

import httpx
import yaml

from tests.gitrepo import GitRepo
from tests.operators import REF, records
from tests.serving import Serving, serving
from tests.world import Host, World, make_world

SPEC = """\
version: 1  # ours
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging: {{release: {{from: main, cut: external}}}}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      retry: {{attempts: 1}}  # once
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
"""

BERND = "Bernd Ö <bernd@example.org>"
"""Whoever runs the commands, as their git knows them."""

ANNA = {"X-Trueup-Actor": "Anna Example <anna@example.org>"}


@dataclass
class Case:
    world: World
    primary: Serving
    host: Host
    relay: str

    async def ask(self, method: str, path: str, body: Any = None, **params: str) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()
        headers = ANNA | ({} if body is None else {"Content-Type": "application/json"})
        return await self.primary.ask_locally(method, path, content=content, params=params, headers=headers)

    async def done(
        self, method: str, path: str, body: Any = None, status: int = 200, **params: str
    ) -> dict[str, Any]:
        answered = await self.ask(method, path, body, **params)
        assert answered.status_code == status, answered.text
        document: dict[str, Any] = answered.json()
        assert document["success"], document
        return document

    async def refused(self, method: str, path: str, body: Any = None, **params: str) -> tuple[int, str]:
        """Status and words; nothing was written."""
        before = self.world.spec.resolve("main"), self.world.spec.resolve(REF)
        answered = await self.ask(method, path, body, **params)
        assert (self.world.spec.resolve("main"), self.world.spec.resolve(REF)) == before
        assert answered.json()["success"] is False
        return answered.status_code, answered.json()["message"]

    async def tested(self, node: str = "web-1") -> dict[str, Any]:
        answered = await self.ask("POST", f"/api/sync/nodes/{node}/test")
        assert answered.status_code == 200, answered.text
        document: dict[str, Any] = answered.json()
        return document

    async def until_connected(self, *, after: int = 0) -> None:
        """After line `after` of the primary's log."""

        def find() -> Any:
            lines = self.primary.lines[after:]
            return next((each for each in lines if each["event"].startswith("node web-1 connected")), None)

        await self.primary.until(find, "node web-1 connected")
        assert (await self.tested())["success"]

    async def until_tasks(self, are: Callable[[list[tuple[str, str]]], bool]) -> list[tuple[str, str]]:
        await self.primary.until(lambda: {"event": ""} if are(self.tasks()) else None, "the task")
        return self.tasks()

    def last_commit(self) -> list[str]:
        log = self.world.spec.git("log", "-1", "--format=%an <%ae>%n%cn <%ce>%n%s", "main")
        return log.splitlines()

    def fingerprint(self) -> str:
        """Of the node's key, as it is recorded."""
        status = yaml.safe_load(self.world.status()["nodes/web-1.yaml"])
        assert "nextCertificate" not in status
        return str(status["fingerprint"])

    def spec(self) -> Any:
        return yaml.safe_load(self.world.spec.read("trueup.yaml"))

    def tasks(self) -> list[tuple[str, str]]:
        """(id, state) of each task, the newest first."""
        with closing(connect(self.world.state / "journal.sqlite", timeout=60)) as journal:
            return journal.execute("SELECT id, state FROM tasks ORDER BY rowid DESC").fetchall()


def protect(spec: GitRepo) -> None:
    """Nobody may push to the spec's branch."""
    hook = spec.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\n[ "$1" = refs/heads/main ] && echo protected >&2 && exit 1\nexit 0\n')
    hook.chmod(0o755)


@asynccontextmanager
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    async with make_world(tmp_path) as (world, relay):
        world.environment |= {
            "TRUEUP_INTERVAL": "24h",
            "GIT_AUTHOR_NAME": BERND.partition(" <")[0],
            "GIT_AUTHOR_EMAIL": BERND.partition("<")[2].rstrip(">"),
        }
        world.app.commit({"site/index.html": "hello\n"})
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address)
        async with serving(world) as primary:
            await world.start_agent(host)
            it = Case(world, primary, host, relay.address)
            await it.until_connected()
            await primary.said("step applied", action="sync")
            yield it
            await world.stop_agents()


async def test_a_node_is_changed_tested_revoked_and_given_another_token(tmp_path: Path) -> None:
    async with case(tmp_path) as it:
        # The connection: a message there and back, and what the agent says of itself.
        found = await it.tested()
        assert found["roundTripMs"] > 0
        assert (found["protocol"], bool(found["agentVersion"]), bool(found["address"])) == (4, True, True)
        assert (await it.refused("POST", "/api/sync/nodes/web-9/test"))[0] == 404

        # Another key and certificate, over that connection.
        before = it.fingerprint()
        done = await it.done("POST", "/api/sync/nodes/web-1/rotate-certificate")
        assert done["message"] == "the agent of web-1 uses another certificate"
        assert it.fingerprint() != before
        assert (await it.tested())["connected"]
        refused = await it.refused("POST", "/api/sync/nodes/web-9/rotate-certificate")
        assert refused == (404, "the spec has no node 'web-9'")

        # What would be committed, and that it is.
        change = {"labels": {"group": "web"}, "name": "Web 1"}
        shown = await it.done("PUT", "/api/sync/nodes/web-1", change, dryRun="true")
        assert (shown["commit"], shown["subject"]) == (None, "Change node web-1")
        assert "+  web-1: {" in shown["diff"]
        wrote = await it.done("PUT", "/api/sync/nodes/web-1", change, expected=shown["parent"])
        assert wrote["commit"] == it.world.spec.resolve("main")
        assert wrote["diff"] == shown["diff"]
        assert it.last_commit() == [
            "Anna Example <anna@example.org>",
            "trueup <trueup@localhost>",
            "Change node web-1",
        ]
        assert it.spec()["nodes"]["web-1"]["labels"] == {"group": "web"}
        assert "# once" in it.world.spec.read("trueup.yaml").decode()
        assert (await it.tested())["success"]  # a label concerns no connection
        stale = await it.refused("DELETE", "/api/sync/nodes/web-1", expected=shown["parent"])
        assert (stale[0], "the spec was changed since" in stale[1]) == (409, True)
        needed = await it.refused("DELETE", "/api/sync/nodes/web-1")
        assert (needed[0], "the spec would have an error" in needed[1]) == (422, True)
        wrong = await it.refused("PUT", "/api/sync/nodes/web-1", {"fingerprint": "x"})
        assert wrong[0] == 422

        # A record takes its token back, over the spec; another one gives it back.
        ran = await it.world.trueup("node", "test", "web-1")
        assert "the agent of web-1 answered in" in ran.stdout
        ran = await it.world.trueup("node", "revoke", "web-1", "--reason", "stolen")
        assert ran.stdout.startswith("recorded 1: revoke nodes/web-1")
        away = await it.tested()
        assert (away["success"], away["connected"]) == (False, False)
        assert "web-1 is revoked" in away["message"]
        [record] = records(it.world.spec)
        assert (record.number, record.kind, record.resource) == (1, "revoke", "nodes/web-1")
        assert (record.by, record.reason) == (BERND, "stolen")
        ran = await it.world.trueup("node", "test", "web-1", "-o", "json", expect=1)
        assert (ran.document["success"], ran.document["message"]) == (False, away["message"])
        assert record.token_key == it.spec()["nodes"]["web-1"]["token_key"]
        again = await it.refused("POST", "/api/sync/nodes/web-1/revoke", {})
        assert (again[0], "is revoked already" in again[1]) == (409, True)
        said = len(it.primary.lines)
        await it.done("POST", "/api/resources/nodes/web-1/resume", {"reason": "found"}, 202)
        await it.until_connected(after=said)

        # Another token: the agent is out until it has joined again.
        rotated = await it.done("POST", "/api/sync/nodes/web-1/rotate-token", {"primaries": [it.relay]})
        assert not (await it.tested())["connected"]
        assert it.last_commit()[2] == "Rotate the token of web-1"
        secret = rotated["join"].split("--token ")[1].split()[0]
        assert secret not in it.world.spec.read("trueup.yaml").decode()
        await it.world.stop_agents()
        it.host.join = shlex.split(rotated["join"])[1:]
        said = len(it.primary.lines)
        await it.world.start_agent(it.host)
        await it.until_connected(after=said)

        # A pair reset ends the connection too.
        await it.done("POST", "/api/sync/nodes/web-1/repair")
        away = await it.tested()
        assert (away["connected"], "has never paired" in away["message"]) == (False, True)

        # A node that comes and goes, and comes no more once the branch is protected.
        made = await it.done("POST", "/api/sync/nodes", {"node": "web-2", "labels": {"group": "db"}}, 201)
        assert "trueup-agent join" in made["join"]
        assert (await it.refused("POST", "/api/sync/nodes", {"node": "web-2"}))[0] == 409
        assert (await it.refused("POST", "/api/sync/nodes", {"node": "not a name"}))[0] == 422
        assert "has never paired" in (await it.tested("web-2"))["message"]
        await it.done("DELETE", "/api/sync/nodes/web-2")
        assert it.spec()["nodes"].keys() == {"web-1"}
        protect(it.world.spec)
        answered = await it.ask("POST", "/api/sync/nodes", {"node": "web-3"})
        told = answered.json()
        assert (answered.status_code, told["reason"]) == (409, "BranchProtected")
        assert "pull request" in told["message"]
        assert "+  web-3: {token_key: " in told["diff"]
        assert "--node web-3" in told["join"]
        ran = await it.world.trueup("node", "rotate-token", "web-1", expect=1)
        assert "for a pull request:" in ran.stdout
        assert "trueup-agent join" in ran.stdout
        assert it.last_commit()[2] == "Remove node web-2"
        await it.done("POST", "/api/sync/nodes/web-1/revoke", {})
        repaired = await it.done("POST", "/api/sync/nodes/web-1/repair")
        assert "web-1 is revoked and may not join" in repaired["message"]


async def test_projects_are_run_and_retried_and_decisions_recorded(tmp_path: Path) -> None:
    async with case(tmp_path) as it:
        said = len(it.primary.lines)
        assert len(it.tasks()) == 1
        follow = await it.done("POST", "/api/sync/projects/site/run", status=202)
        assert follow["url"] == "/api/sync/tasks?project=site"
        await it.primary.said("step applied", after=said, action="sync")
        [second, _] = it.tasks()
        assert second[1] == "SUCCESS"
        refused = await it.refused("POST", f"/api/sync/tasks/{second[0]}/retry")
        assert (refused[0], "only one that is FAILED" in refused[1]) == (409, True)
        assert (await it.refused("POST", "/api/sync/tasks/nothing/retry"))[0] == 404
        assert (await it.refused("POST", "/api/sync/projects/sit/run"))[0] == 404

        # What would stay as it is, is refused with who wants it so.
        away = await it.refused("POST", "/api/sync/projects/site/run", environment="staging")
        assert (away[0], "it is in none" in away[1]) == (404, True)
        for left in ("projects/branch/site", "projects/site"):
            await it.done("POST", f"/api/resources/{left}/suspend", {"reason": "moving"}, 202)
            kept = await it.refused("POST", "/api/sync/projects/site/run")
            assert kept[0] == 409
            assert f"{left} is suspended by Anna Example" in kept[1]
            assert "moving" in kept[1]
            await it.done("POST", f"/api/resources/{left}/resume", {}, 202)
        await it.done("POST", "/api/freeze", {"reason": "a fire"}, 202)
        frozen = await it.refused("POST", "/api/sync/projects/site/run")
        assert (frozen[0], "everything is frozen by Anna Example" in frozen[1]) == (409, True)
        await it.done("POST", "/api/unfreeze", {}, 202)
        await it.done("POST", "/api/sync/projects/site/run", status=202)

        # How it is synced: as a commit; to a place that the agent refuses.
        outside = {"nodes": [{"node_id": "web-1", "target_path": "/not/allowed"}]}
        wrote = await it.done("PUT", "/api/sync/projects/site/sync", {"sync": outside})
        assert it.last_commit()[2] == "Change how site is synced"
        assert wrote["diff"].count("\n-") == 1
        failed = await it.until_tasks(lambda tasks: tasks[0][1] == "FAILED")
        await it.done("POST", f"/api/sync/tasks/{failed[0][0]}/retry", status=202)
        await it.until_tasks(lambda tasks: len(tasks) > len(failed))
        wrong = await it.refused("PUT", "/api/sync/projects/site/sync", {"sync": {"on_drif": "heal"}})
        assert (wrong[0], "did you mean" in wrong[1]) == (422, True)

        # Decisions, with the commands' own refusals.
        held = await it.done("POST", "/api/environments/staging/hold", {"reason": "wait"}, 202)
        assert held["decisions"] == [{"number": 7, "what": "hold staging"}]
        record = records(it.world.spec)[-1]
        assert (record.by, record.reason) == ("Anna Example <anna@example.org>", "wait")
        twice = await it.refused("POST", "/api/environments/staging/hold", {})
        command = await it.world.trueup("hold", "staging", expect=1)
        assert twice == (409, command.stderr.strip().removeprefix("error: "))
        unknown = await it.refused("POST", "/api/environments/stagin/hold", {})
        assert (unknown[0], "did you mean staging?" in unknown[1]) == (404, True)
        await it.done("POST", "/api/environments/staging/unhold", {}, 202)
        nothing = await it.refused("POST", "/api/environments/staging/promote", {})
        assert (nothing[0], "takes releases of its own" in nothing[1]) == (409, True)
        closed = await it.refused("POST", "/api/environments/staging/override", {"for": "1h", "reason": "x"})
        assert (closed[0], "no windows" in closed[1]) == (409, True)
        assert (await it.refused("POST", "/api/environments/staging/override", {"for": "x", "reason": "x"}))[
            0
        ] == 422
        await it.done("POST", "/api/resources/project/site/suspend", {}, 202)
        await it.done("POST", "/api/resources/projects/site/resume", {}, 202)
        await it.done("POST", "/api/freeze", {"reason": "stop"}, 202)
        await it.done("POST", "/api/unfreeze", {}, 202)
        assert [each.kind for each in records(it.world.spec)][6:] == [
            *("hold", "unhold", "suspend", "resume", "freeze", "unfreeze")
        ]

        # Whoever has no token decides nothing.
        for method, path in (
            ("POST", "/api/freeze"),
            ("POST", "/api/sync/nodes/web-1/revoke"),
            ("DELETE", "/api/sync/nodes/web-1"),
            ("PUT", "/api/sync/projects/site/sync"),
        ):
            assert (await it.primary.ask(method, path)).status_code in (401, 403)
