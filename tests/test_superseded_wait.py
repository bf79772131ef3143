"""A bad release that waits for its health, under `trueup serve`: the one that mends it is not held back."""

import hashlib
import hmac
import json
from pathlib import Path

import trio

from tests.bad_world import API, Case, make_case
from tests.canaries import canary
from tests.httptarget import Target, http_target
from tests.serving import Serving, serving


def with_health(case: Case, target: Target) -> str:
    check = f'{{http: "{target.url}", timeout: 1h, interval: 10ms}}'
    return case.good.replace("  api:\n", f"  api:\n    health: {check}\n")


async def pushed(primary: Serving, secret: str, ref: str) -> None:
    """What GitHub says after a push."""
    body = json.dumps({"ref": ref, "repository": {"full_name": "org/app"}}).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": f"sha256={digest}", "x-github-event": "push"}
    assert (await primary.ask("POST", "/webhook", content=body, headers=headers)).status_code == 202


async def bad_release(case: Case, target: Target, primary: Serving) -> None:
    """v1.0.0 is well; v1.0.1 is deployed and answers 503."""
    await primary.said("step applied", resource=API)
    await primary.said("pass ended")
    target.answers[:] = [503]
    asked = trio.Event()
    target.on_ask = asked.set
    await trio.to_thread.run_sync(case.release, "v1.0.1")
    await primary.ask_locally("POST", "/api/reconcile")
    await asked.wait()


async def test_a_webhook_tells_of_the_release_that_mends_it(tmp_path: Path) -> None:
    secret = canary("github-webhook")
    async with make_case(tmp_path) as case, http_target(200) as target:
        case.commit(with_health(case, target))
        async with serving(case.world, WEBHOOK_SECRET=secret, TRUEUP_INTERVAL="1h") as primary:
            await bad_release(case, target, primary)
            target.on_ask = lambda: None
            told = len(primary.lines)
            await trio.to_thread.run_sync(case.release, "v1.0.2")
            # The wait for the bad one ends, and only then is anything well again.
            await pushed(primary, secret, "refs/tags/v1.0.2")
            failed = await primary.said("step failed", after=told, resource=API)
            assert failed["reason"] == "Superseded"
            target.answers[:] = [200]
            await primary.said("step applied", after=told, resource=API)
            await primary.said("pass ended", after=primary.lines.index(failed) + 2)
            assert await primary.end() == 0
        assert case.deployed()["api"] == ["v1.0.0", "v1.0.1", "v1.0.2"]
        assert case.ready(API)[0] == "True"


async def test_other_news_end_no_wait(tmp_path: Path) -> None:
    """A push to a branch that nobody releases from, and a change of the spec: only the second counts."""
    secret = canary("github-webhook-2")
    async with make_case(tmp_path) as case, http_target(200) as target:
        case.commit(with_health(case, target))
        async with serving(case.world, WEBHOOK_SECRET=secret, TRUEUP_INTERVAL="1h") as primary:
            await bad_release(case, target, primary)
            told = len(primary.lines)
            again = trio.Event()
            await trio.to_thread.run_sync(
                lambda: case.world.app.commit({"api/compose.yaml": "x"}, branch="other")
            )
            await pushed(primary, secret, "refs/heads/other")
            # It goes on asking.
            target.on_ask = again.set
            await again.wait()
            assert not [line for line in primary.lines[told:] if line.get("event") == "step failed"]
            target.on_ask = lambda: None
            mended = case.good.replace("  api:\n", "  api:\n    env: {A: b}\n")
            await trio.to_thread.run_sync(case.commit, mended)
            await pushed(primary, secret, "refs/heads/main")
            failed = await primary.said("step failed", after=told, resource=API)
            assert "when main moved" in failed["error"]
            await primary.said("step applied", after=told, resource=API)
            assert await primary.end() == 0
        assert case.deployed()["api"] == ["v1.0.0", "v1.0.1", "v1.0.1"]
