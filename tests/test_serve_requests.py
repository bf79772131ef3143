"""A running primary that is told of something or asked: by webhooks and on its local socket, or by nobody."""

import hashlib
import hmac
import json
import os
import signal
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble, server_error
from tests.serve_world import HEALTHY, applied, deploys, fill, reader_of
from tests.serving import serving
from tests.world import make_world


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


def signed(secret: str, event: str, double: InfisicalDouble, path: str = "/") -> tuple[dict[str, str], bytes]:
    """Headers and body of a delivery as Infisical makes it."""
    now = time.time_ns() // 1_000_000
    project = {"workspaceId": double.project, "environment": "staging", "secretPath": path}
    body = json.dumps({"event": event, "project": project, "timestamp": now}).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-infisical-signature": f"t={now};{digest}"}, body


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
