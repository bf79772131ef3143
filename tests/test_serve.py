"""A running primary as a real process: passes by themselves and on request, signals, and being killed."""

import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble, server_error
from tests.serving import Serving, serving
from tests.world import PATIENCE, World, make_world

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging:
    release: {{from: main, cut: external}}
secret_sources:
  vault:
    kind: infisical
    host: "{infisical}"
    project_id: {project}
    environment_slug: staging
    client_id: {{env: INFISICAL_CLIENT_ID}}
    client_secret: {{env: INFISICAL_CLIENT_SECRET}}
    cache_ttl: {ttl}
    refresh_interval: {refresh}
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

HEALTHY = {"status": "ok", "live": True, "ready": True, "role": "leader"}

DAY = "24h"
"""An interval after which no test is still there."""


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


def fill(world: World, double: InfisicalDouble, *, ttl: str = "1h", refresh: str = "0s") -> None:
    double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("first")}
    world.environment |= {
        "INFISICAL_CLIENT_ID": double.client_id,
        "INFISICAL_CLIENT_SECRET": double.client_secret,
        "TRUEUP_INTERVAL": DAY,
    }
    world.app.commit(
        {
            "tasks.py": TASKS.format(root=str(world.deployed)),
            "database/compose.yaml": "one\n",
            "api/compose.yaml": "one\n",
        }
    )
    world.app.tag("v1.0.0")
    world.commit_spec(
        SPEC.format(app=world.app.url, infisical=double.url, project=double.project, ttl=ttl, refresh=refresh)
    )


def deploys(world: World, service: str) -> list[str]:
    log = world.deployed / service
    return log.read_text().splitlines() if log.exists() else []


def signed(secret: str, event: str, double: InfisicalDouble, path: str = "/") -> tuple[dict[str, str], bytes]:
    """Headers and body of a delivery as Infisical makes it."""
    now = time.time_ns() // 1_000_000
    project = {"workspaceId": double.project, "environment": "staging", "secretPath": path}
    body = json.dumps({"event": event, "project": project, "timestamp": now}).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-infisical-signature": f"t={now};{digest}"}, body


async def applied(primary: Serving, service: str, after: int = 0) -> None:
    await primary.said("step applied", after=after, resource=f"services/staging/{service}")
    await primary.said("pass ended", after=after)


async def test_a_secret_that_a_webhook_tells_of_is_deployed(tmp_path: Path, double: InfisicalDouble) -> None:
    secret = canary("webhook-secret")
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        async with serving(world, INFISICAL_WEBHOOK_SECRET=secret) as primary:
            await applied(primary, "database")
            assert deploys(world, "database") == ["v1.0.0"]
            double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("second")}
            told = len(primary.lines)

            guess = canary("guess")
            for key, path, status in ((secret, "/other", 202), (guess, "/", 401), (secret, "/", 202)):
                headers, body = signed(key, "secrets.modified", double, path)
                answered = await primary.ask("POST", "/webhook", headers=headers, content=body)
                assert (answered.status_code, answered.json()["success"]) == (status, status == 202)
            await applied(primary, "database", told)
            asked = [line for line in primary.lines[told:] if line["event"] == "a pass was asked for"]
            assert [line["why"] for line in asked] == ["secrets changed: vault"]
            assert deploys(world, "database") == ["v1.0.0", "v1.0.0"]
            assert deploys(world, "api") == ["v1.0.0"]
            assert await primary.end() == 0


async def test_a_push_that_github_tells_of(tmp_path: Path, double: InfisicalDouble) -> None:
    secret = canary("github-webhook-secret")
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        async with serving(world, WEBHOOK_SECRET=secret) as primary:
            await applied(primary, "api")
            told = len(primary.lines)
            world.app.commit({"api/compose.yaml": "two\n"})
            world.app.tag("v1.1.0")
            for ref in ("refs/heads/trueup/status", "refs/tags/v1.1.0"):
                body = json.dumps({"ref": ref, "repository": {"full_name": "org/app"}}).encode()
                digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
                headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "push"}
                answered = await primary.ask("POST", "/webhook", headers=headers, content=body)
                assert answered.status_code == 202
                # The other one's secret is not set.
                closed = await primary.ask("POST", "/webhook", headers={"x-infisical-signature": "t=1;0"})
                assert closed.status_code == 403
            await applied(primary, "api", told)
            asked = [line["why"] for line in primary.lines[told:] if line["event"] == "a pass was asked for"]
            assert asked == ["push to refs/tags/v1.1.0 of org/app"]
            assert deploys(world, "api") == ["v1.0.0", "v1.1.0"]


async def test_a_secret_that_changed_is_deployed_without_being_told(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double, ttl="2s", refresh="1s")
        async with serving(world) as primary:
            await applied(primary, "database")
            told = len(primary.lines)
            double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("second")}
            await applied(primary, "database", told)
            assert deploys(world, "api") == ["v1.0.0"]


async def test_the_local_socket(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        async with serving(world) as primary:
            await applied(primary, "database")
            path = world.state / "trueup.sock"
            assert primary.socket == str(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert (await primary.ask_locally("GET", "/health")).json() == HEALTHY
            [listed] = (await primary.ask_locally("GET", "/api/secrets")).json()["sources"]
            [environment] = listed["environments"]
            assert (listed["name"], environment["keys"]) == ("vault", ["DB_PASSWORD"])

            double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("second")}
            told = len(primary.lines)
            synced = await primary.ask_locally("POST", "/api/secrets/vault/sync")
            assert synced.json() == {
                "success": True,
                "message": "Secret vault synced successfully",
                "changes": {"appeared": [], "changed": ["DB_PASSWORD"], "vanished": []},
            }
            await applied(primary, "database", told)

            double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("third")}
            told = len(primary.lines)
            cleared = await primary.ask_locally("POST", "/api/secrets/cache/clear")
            assert cleared.json() == {"success": True, "message": "All secrets cache cleared"}
            await applied(primary, "database", told)
            assert deploys(world, "database") == ["v1.0.0"] * 3

            missing = await primary.ask_locally("POST", "/api/secrets/nothing/sync")
            assert (missing.status_code, missing.json()["message"]) == (404, "Secret nothing not found")
            double.fail_with(server_error(), times=10)
            failed = await primary.ask_locally("POST", "/api/secrets/vault/sync")
            assert (failed.status_code, failed.json()["reason"]) == (503, "SecretFetchFailed")
            unknown = await primary.ask_locally("GET", "/api/nothing")
            assert (unknown.status_code, unknown.json()["success"]) == (404, False)

            # Nothing of this is open to the network.
            assert (await primary.ask("GET", "/api/secrets")).status_code == 403
            for route in ("/api/secrets/vault/sync", "/api/secrets/cache/clear", "/api/reconcile"):
                assert (await primary.ask("POST", route)).status_code == 403
            assert (await primary.ask("POST", "/webhook", content=b"{}")).status_code == 404
            assert (await primary.ask("GET", "/health")).json() == HEALTHY
            assert await primary.end(signal.SIGINT) == 0
            assert not path.exists()


async def test_a_killed_primary_is_followed_by_another(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        async with serving(world) as first:
            await applied(first, "database")
            second = await world.trueup("serve", expect=1)
            assert "another trueup works on" in second.stderr
            assert await first.end(signal.SIGKILL) == -signal.SIGKILL
        assert (world.state / "trueup.sock").exists()
        async with serving(world) as primary:
            assert (await primary.ask_locally("GET", "/health")).json()["status"] == "ok"
            assert await primary.end() == 0
        assert deploys(world, "database") == ["v1.0.0"]


async def test_a_stop_waits_for_the_pass_and_a_second_one_does_not(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        held = world.deployed / "hold-database"
        os.mkfifo(held)
        async with serving(world) as primary:
            running = await reader_of(held)
            primary.process.send_signal(signal.SIGTERM)
            await primary.said("stopping")
            os.close(running)
            with trio.fail_after(PATIENCE):
                assert await primary.process.wait() == 0
        assert deploys(world, "database") == ["v1.0.0"]

        world.app.commit({"database/compose.yaml": "two\n"})
        world.app.tag("v1.1.0")
        async with serving(world) as primary:
            running = await reader_of(held)
            primary.process.send_signal(signal.SIGTERM)
            await primary.said("stopping")
            assert await primary.end() == 0
        os.close(running)
        held.unlink()
        assert deploys(world, "database") == ["v1.0.0"]
        async with serving(world) as primary:
            await applied(primary, "database")
        assert deploys(world, "database") == ["v1.0.0", "v1.1.0"]


async def reader_of(fifo: Path) -> int:
    """Once somebody reads the pipe: its end to write, whose closing lets that one go on."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(os.open, fifo, os.O_WRONLY, abandon_on_cancel=True)


async def test_errors_of_a_pass_are_one_line_and_the_loop_goes_on(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        good = world.spec.files("refs/heads/main")["trueup.yaml"]
        world.commit_spec("version: 1\nservices: [1, 2\n")
        async with serving(world) as primary:
            line = await primary.said("no pass could be made")
            assert line["error"].startswith("trueup.yaml:") and "\n" not in line["error"]
            assert (await primary.ask("GET", "/health")).json() == HEALTHY | {"ready": False}
            early = await primary.ask_locally("GET", "/api/secrets")
            assert (early.status_code, early.json()["reason"]) == (503, "NoPassYet")
            world.commit_spec(good.decode())
            asked = await primary.ask_locally("POST", "/api/reconcile")
            assert asked.status_code == 202
            await applied(primary, "database")
            assert await primary.end() == 0


async def test_what_cannot_be_had_is_said_at_the_start(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ran = await world.trueup("serve", expect=1, TRUEUP_HTTP_ADDR=f"127.0.0.1:{port}")
        assert "error: TRUEUP_HTTP_ADDR: cannot listen on" in ran.stderr
        (world.state / "trueup.sock").write_text("something of yours")
        ran = await world.trueup("serve", expect=1, TRUEUP_HTTP_ADDR="127.0.0.1:0")
        assert f"error: {world.state}/trueup.sock: is in the way and is no socket" in ran.stderr
        assert "Traceback" not in ran.stderr


INSPECTED = """\
import atexit, ctypes, resource, sys
from pathlib import Path
from reconciler.cli import main

def inspect():
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    Path("inspected").write_text(f"{dumpable} {resource.getrlimit(resource.RLIMIT_CORE)[0]}")

atexit.register(inspect)
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
main()
"""


async def test_no_core_dumps(tmp_path: Path, double: InfisicalDouble) -> None:
    """And tasks, which are started from such a process, go on as ever."""
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        ran = await world.run(["-c", INSPECTED, "reconcile"])
        assert ran.exit_code == 0, ran.stderr
        assert (world.root / "inspected").read_text() == "0 0"
        assert deploys(world, "database") == ["v1.0.0"]
        (world.root / "inspected").unlink()
        world.app.commit({"database/compose.yaml": "two\n"})
        world.app.tag("v1.1.0")
        async with serving(world, command=("-c", INSPECTED)) as primary:
            await applied(primary, "database")
            assert core_limit_of(primary.process.pid) == "0"
            assert await primary.end() == 0
        assert (world.root / "inspected").read_text() == "0 0"
        assert deploys(world, "database") == ["v1.0.0", "v1.1.0"]


def core_limit_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4]


async def test_a_burst_of_requests_makes_few_passes(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world, double)
        held = world.deployed / "hold-database"
        os.mkfifo(held)
        async with serving(world) as primary:
            running = await reader_of(held)
            for _ in range(100):
                assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            # The pass that is under way has looked at git already; a later one will see this.
            world.app.commit({"api/compose.yaml": "two\n"})
            world.app.tag("v1.1.0")
            held.unlink()
            os.close(running)
            await primary.said("pass ended")
            await primary.until(lambda: {} if deploys(world, "api")[1:] else None, "the second release")
            assert await primary.end() == 0
        with closing(sqlite3.connect(world.state / "journal.sqlite")) as journal:
            [passes] = journal.execute("SELECT count(*) FROM passes").fetchone()
        # Mostly three: the first, one for all who asked, and one for the end of a step. More where a machine
        # takes so long for a hundred requests that a pass for the first of them has begun before the last.
        assert 2 <= passes < 20


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


async def test_agents_stay_connected_and_one_that_comes_back_is_seen_to(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_world(tmp_path) as (world, relay):
        fill(world, double)
        target = world.root / "hosts/web-1/srv/site"
        world.commit_spec(SYNCED.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address, "group=web")
        async with serving(world) as primary:
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            await primary.said("pass ended")
            assert (target / "compose.yaml").read_text() == "one\n"
            await world.stop_agents()

            world.app.commit({"api/compose.yaml": "two\n"})
            told = len(primary.lines)
            await primary.ask_locally("POST", "/api/reconcile")
            await primary.said("pass ended", after=told)
            assert (target / "compose.yaml").read_text() == "one\n"
            await world.start_agent(host, joined=True)
            await primary.said("a pass was asked for", after=told, why="connected: web-1")
            await primary.said("step applied", after=told, action="sync")
            assert (target / "compose.yaml").read_text() == "two\n"
            # Also where no pass missed it: it may have been lost in the middle of a step.
            await world.stop_agents()
            told = len(primary.lines)
            await world.start_agent(host, joined=True)
            await primary.said("a pass was asked for", after=told, why="connected: web-1")
            assert await primary.end() == 0
