"""Releases asked for through the API of a real primary, judged as the commands judge them; `POST /sync`."""

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.canaries import canary
from tests.deploying import Deploying, deploying


async def decide(it: Deploying, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Content-Type": "application/json", "X-Trueup-Actor": "Anna <anna@example.org>"}
    content = json.dumps(body).encode()
    return await it.primary.ask_locally("POST", f"/api/environments/{path}", content=content, headers=headers)


async def refused(it: Deploying, path: str, body: dict[str, Any]) -> str:
    before = it.records()
    answered = await decide(it, path, body)
    assert (answered.status_code, it.records()) == (409, before)
    message: str = answered.json()["message"]
    return message


async def recorded(it: Deploying, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answered = await decide(it, path, body)
    assert answered.status_code == 202, answered.text
    record: dict[str, Any] = yaml.safe_load(it.records()[-1])
    assert record["by"] == "Anna <anna@example.org>"
    return record


async def sync(it: Deploying, body: dict[str, Any], *, once: bool = True, secret: str = "") -> httpx.Response:
    if once:
        body = {**body, "requested_at": int(time.time()), "nonce": "a-nonce-of-ours"}
    content = json.dumps(body).encode()
    digest = hmac.new((secret or it.secret).encode(), content, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={digest}"}
    return await it.primary.ask("POST", "/sync", content=content, headers=headers)


async def test_a_release_is_promoted_fixed_and_taken_back(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("sync-secret")) as it:
        said = len(it.primary.lines)
        message = await refused(it, "production/promote", {})
        assert message.startswith("this would promote app to production from staging")
        command = await it.world.trueup("promote", "staging", "production", expect=1)
        said_by_command = command.stderr.splitlines()[-1].removeprefix("error: ")
        assert said_by_command.partition(" (promote by")[0] == message.partition(" (promote by")[0]
        record = await recorded(it, "production/promote", {"confirm": "deploy", "reason": "good"})
        assert (record["kind"], record["tag"], record["reason"]) == ("promote", "v1.0.0", "good")
        await it.primary.applied(after=said, resource="services/production/web")
        assert it.deployed("production") == ["v1.1.0"]
        assert "production runs" in await refused(it, "production/promote", {"confirm": "deploy"})
        assert "asks for no approval" in await refused(it, "production/approve", {})
        assert "nothing to roll back to" in await refused(it, "production/rollback", {})
        begun = (await decide(it, "production/hotfix", {})).json()
        assert (begun["begun"]["branch"], begun["decisions"]) == ("hotfix/app-v1.1.0", [])
        assert it.world.app.resolve("hotfix/app-v1.1.0") == it.world.app.resolve("v1.1.0^{commit}")
        await check_fixed_and_taken_back(it)

        # Look now: signed with a time and a nonce, which counts once.
        said = len(it.primary.lines)
        asked = {"env": "staging", "service": "web", "force": True}
        answered = await sync(it, asked)
        assert answered.status_code == 202, answered.text
        await it.primary.applied(after=said, resource="services/staging/web")
        assert it.deployed("staging") == ["v1.0.0", "v1.0.0"]
        assert it.deployed("production") == ["v1.1.0", "v1.1.1", "v1.1.0"]
        for body, once, secret, status in (
            (asked, False, "", 400),
            (asked, True, "another", 401),
            ({"env": "stagin"}, True, "", 404),
            ({"service": "wob"}, True, "", 404),
            ({}, True, "", 400),
            ({"all": True, "force": True}, True, "", 400),
        ):
            found = await sync(it, body, once=once, secret=secret)
            assert (found.status_code, found.json()["success"]) == (status, False), body
        replayed = await it.primary.ask(
            "POST", "/sync", content=answered.request.content, headers=answered.request.headers
        )
        assert replayed.status_code == 202
        # With a token, or on the socket, it needs no signature, and nobody gets in without.
        said = len(it.primary.lines)
        assert (await it.primary.ask_locally("POST", "/sync", content=b'{"all": true}')).status_code == 202
        await it.primary.said("a pass was asked for", after=said)
        assert (await it.primary.ask("POST", "/sync", content=b'{"all": true}')).status_code in (401, 403)
        assert it.deployed("staging") == ["v1.0.0", "v1.0.0"]


async def check_fixed_and_taken_back(it: Deploying) -> None:
    """What git has afterwards: the records, the tag, the hold, and what runs."""
    said = len(it.primary.lines)
    fix = it.world.app.commit({"web/compose.yaml": "fixed"}, branch="hotfix/app-v1.1.0")
    record = await recorded(it, "production/hotfix", {"confirm": "deploy", "reason": "a fix"})
    assert (record["kind"], record["environment"], record["reason"]) == ("hotfix", "production", "a fix")
    await it.primary.applied(after=said, resource="services/production/web")
    assert it.world.app.resolve("v1.1.1^{commit}") == fix
    assert it.deployed("production") == ["v1.1.0", "v1.1.1"]
    said = len(it.primary.lines)
    record = await recorded(it, "production/rollback", {"reason": "worse"})
    assert (record["kind"], record["tag"], record["reason"]) == ("rollback", "v1.1.0", "worse")
    await it.primary.applied(after=said, resource="services/production/web")
    assert it.deployed("production") == ["v1.1.0", "v1.1.1", "v1.1.0"]
    status = yaml.safe_load(it.world.status()["environments/production.yaml"])
    assert status["units"]["app"]["release"]["tag"] == "v1.1.0"


async def test_a_release_is_made_approved_and_let_out_of_hours(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("release-secret")) as it:
        closed = f"{datetime.now(UTC) + timedelta(days=3):%a} 09:00-09:01"
        text = it.world.spec.read("trueup.yaml").decode()
        gated = f'bump: minor, approval: manual}}, windows: [{{allow: "{closed}", timezone: UTC}}]}}\n'
        it.world.commit_spec(text.replace("bump: minor}}\n", gated))
        said = len(it.primary.lines)
        assert (await it.primary.ask_locally("POST", "/api/reconcile")).status_code == 202
        await it.primary.said("pass ended", after=said)
        kinds = []
        for path, body in (
            ("release", {"bump": "major", "reason": "two"}),
            ("approve", {"reason": "seen"}),
            ("override", {"for": "2h", "reason": "out of hours"}),
        ):
            assert it.deployed("production") == []
            said = len(it.primary.lines)
            record = await recorded(it, f"production/{path}", body)
            assert (record["environment"], record["reason"]) == ("production", body["reason"])
            kinds.append(record["kind"])
            await it.primary.said("pass ended", after=said)
        assert kinds[1:] == ["approve", "override"]
        await it.primary.said("step applied", resource="services/production/web")
        assert it.deployed("production") == ["v2.0.0"]
        assert it.world.app.resolve("v2.0.0^{commit}") == it.world.app.resolve("v1.0.0^{commit}")
