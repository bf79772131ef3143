"""`POST /deploy` of a real primary: what it takes, records and refuses, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import httpx
import trio
import yaml

from tests.canaries import canary
from tests.deploying import Deploying, body_of, deploying
from tests.serving import serving


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


async def in_thread(function: Any, *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(function, *arguments)


async def test_staging_takes_the_tag_of_a_workflow(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("deploy")) as it:
        await in_thread(it.release, "v1.0.1")
        # In the form of older workflows: sent again, it does nothing again.
        answer = await it.ask("staging", "v1.0.1", once=False)
        end = await it.end_of(answer)
        assert (end["state"], end["release"], end["kind"]) == ("succeeded", "v1.0.1", "follow")
        again = await it.end_of(await it.ask("staging", "v1.0.1", once=False))
        assert again["state"] == "succeeded"
        assert it.deployed("staging") == ["v1.0.0", "v1.0.1"]
        assert it.records() == []
        # And what means nothing is said to mean nothing.
        status, message = told(await it.ask("staging", "v9.9.9"))
        assert (status, "nothing that runs in staging has a release tag v9.9.9" in message) == (404, True)
        status, message = told(await it.ask("stagin", "v1.0.1"))
        assert (status, "did you mean staging?" in message) == (404, True)
        status, message = told(await it.ask("staging", "v1.0.1", service="wb"))
        assert (status, "did you mean web?" in message) == (404, True)
        status, message = told(await it.ask("staging", "v1.0.0"))
        assert (status, "goes forwards only" in message) == (409, True)
        # A release that fails.
        await in_thread(lambda: it.release("v1.0.2", broken=True))
        end = await it.end_of(await it.ask("staging", "v1.0.2"))
        assert end["state"] == "failed"
        assert (await it.primary.ask("GET", "/deploy/0123456789abcdef")).status_code == 404


async def test_who_may_ask(tmp_path: Path) -> None:
    secret = canary("deploy-2")
    async with deploying(tmp_path, secret) as it:
        body = body_of("staging", "v1.0.0")
        assert told(await it.send(body, secret="another"))[0] == 401
        assert (await it.primary.ask("POST", "/deploy", content=body)).status_code == 401
        assert (await it.send(b"x" * 70_000)).status_code == 413
        assert secret not in "\n".join(map(json.dumps, it.primary.lines))
        assert (await it.primary.ask("GET", "/deploy")).status_code == 405


async def test_without_a_secret_it_is_closed(tmp_path: Path) -> None:
    async with deploying(tmp_path, "", WEBHOOK_SECRET="") as it:
        answer = await it.ask("staging", "v1.0.0")
        assert told(answer) == (404, "deploys are closed; DEPLOY_SECRET opens them")


async def promote(it: Deploying, tag: str, **more: Any) -> dict[str, Any]:
    return await it.end_of(await it.ask("production", tag, **more))


async def test_production_is_promoted_to_in_the_name_of_who_asked(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("deploy-3")) as it:
        body = body_of("production", "v1.0.0")
        first = await it.send(body)
        end = await it.end_of(first)
        assert (end["state"], end["release"], end["kind"]) == ("succeeded", "v1.1.0", "promote")
        [record] = map(yaml.safe_load, it.records())
        assert record["by"] == "octocat via deploy <deploy@localhost>"
        assert (record["kind"], record["tag"], record["source"]) == ("promote", "v1.0.0", "staging")
        assert it.deployed("production") == ["v1.1.0"]
        # The same body again is the same request; another one with its nonce is none.
        again = await it.send(body)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        other = {**json.loads(body), "tag": "v1.0.1"}
        assert told(await it.send(json.dumps(other).encode())) == (
            409,
            "this nonce was used for another request",
        )
        # What staging never ran is refused, and what runs already is told.
        root = it.world.app.resolve("main")
        await in_thread(lambda: it.release("v0.9.0", branch="side", start=root))
        status, message = told(await it.ask("production", "v0.8.0"))
        assert (status, "has a release tag v0.8.0" in message) == (404, True)
        ended = await it.ask("production", "v1.0.0")
        assert (await it.end_of(ended))["state"] == "succeeded"
        assert len(it.records()) == 1


async def test_what_was_answered_is_done_by_the_next_primary(tmp_path: Path) -> None:
    secret = canary("deploy-6")
    async with deploying(tmp_path, secret) as it:
        answer = await it.ask("production", "v1.0.0")
        it.primary.process.kill()
        await it.primary.process.wait()
        async with serving(it.world, DEPLOY_SECRET=secret, TRUEUP_INTERVAL="1h") as second:
            it.primary = second
            await second.said("pass ended")  # it stands by until the killed one's lease has run out
            end = await it.end_of(answer)
            assert (end["state"], end["release"]) == ("succeeded", "v1.1.0")
            assert it.deployed("production")[-1] == "v1.1.0"
            assert len(it.records()) == 1


async def test_a_request_that_could_be_sent_again_goes_forwards_only(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("deploy-4")) as it:
        assert (await promote(it, "v1.0.0", once=False))["release"] == "v1.1.0"
        await in_thread(it.release, "v1.2.0")
        assert (await it.end_of(await it.ask("staging", "v1.2.0")))["state"] == "succeeded"
        replayed = body_of("production", "v1.2.0", once=False)
        assert (await it.end_of(await it.send(replayed)))["release"] == "v1.3.0"
        records = len(it.records())
        # Somebody goes back; whoever saw the body sends it again.
        back = await it.ask("production", "v1.1.0", rollback=True)
        assert (await it.end_of(back))["state"] == "succeeded"
        status, message = told(await it.send(replayed))
        assert (status, "stays as it is" in message) == (409, True)
        await it.world.trueup("unhold", "production")
        status, message = told(await it.send(replayed))
        assert (status, "is not newer than what ran in production before" in message) == (409, True)
        assert len(it.records()) == records + 2
        # With time and nonce somebody means it.
        assert (await promote(it, "v1.2.0"))["state"] == "succeeded"
        assert it.deployed("production") == ["v1.1.0", "v1.3.0", "v1.1.0", "v1.4.0"]


async def test_the_tag_of_a_hotfix_goes_to_production_alone(tmp_path: Path) -> None:
    async with deploying(tmp_path, canary("deploy-5")) as it:
        assert (await promote(it, "v1.0.0"))["release"] == "v1.1.0"
        start = await in_thread(it.world.app.resolve, "main")
        await in_thread(lambda: it.release("v1.0.1"))
        assert (await it.end_of(await it.ask("staging", "v1.0.1")))["state"] == "succeeded"
        await in_thread(lambda: it.release("v1.1.1", branch="hotfix", start=start, environment=""))
        end = await promote(it, "v1.1.1")
        assert (end["state"], end["release"], end["kind"]) == ("succeeded", "v1.1.1", "hotfix")
        assert it.deployed("production") == ["v1.1.0", "v1.1.1"]
        # A tag that staging would never take is not waited for.
        await in_thread(lambda: it.release("v1.1.2", environment=""))
        status, message = told(await it.ask("staging", "v1.1.2"))
        assert (status, "names no environment, and other tags of app do" in message) == (409, True)
        status, message = told(await it.ask("staging", "v1.1.0"))
        assert (status, "is a release for production, not for staging" in message) == (409, True)
        # A promotion that lacks it is refused at once.
        status, message = told(await it.ask("production", "v1.0.1"))
        assert (status, "lacks commits of the hotfix v1.1.1" in message) == (409, True)
