"""A webhook that tells those who wait in the running primary, without a network in between."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any, cast

import httpx
import trio

from reconciler.primary import open_primary
from reconciler.runner import Runner
from reconciler.settings import load_settings
from reconciler.setup import make_key
from reconciler.web.app import public_app
from tests.canaries import canary, may_hold
from tests.gitrepo import GitRepo


async def test_a_workflow_that_ended_wakes_who_waits_for_its_export(tmp_path: Path) -> None:
    secret = canary("github-webhook-secret")
    settings = load_settings(
        {
            "HOME": str(tmp_path),
            "TRUEUP_SPEC_REPO": GitRepo.create(tmp_path / "spec.git").url,
            "TRUEUP_STATE_DIR": str(tmp_path / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "WEBHOOK_SECRET": secret,
        },
        root=False,
    )
    may_hold(tmp_path / "state/master.key")
    list(make_key(settings))
    async with open_primary(settings) as primary:
        transport = httpx.ASGITransport(cast(Any, public_app(Runner(primary))))
        async with httpx.AsyncClient(transport=transport, base_url="http://primary") as client:

            async def deliver(action: str) -> None:
                body = json.dumps({"action": action, "repository": {"full_name": "Org/Devops"}}).encode()
                digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
                headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "workflow_run"}
                assert (await client.post("/webhook", headers=headers, content=body)).status_code == 202

            with primary.arrivals.listening("org/devops") as ear, trio.fail_after(60):
                await deliver("requested")
                await ear.wait(0)
                before = trio.current_time()
                await deliver("completed")
                await ear.wait(30)
                assert trio.current_time() - before < 30
