"""Health through `trueup reconcile`: waited for after a deploy, looked at afterwards, told in status."""

from pathlib import Path
from typing import Any

import trio

from tests.bad_world import API, BOTH, Case, make_case
from tests.httptarget import SILENT, Target, http_target

UNHEALTHY = "HealthCheckFailed"


def healthy(case: Case, id: str = API) -> tuple[str, str, str] | None:
    for condition in case.status(id)["conditions"]:
        if condition["type"] == "Healthy":
            return condition["status"], condition["reason"], condition.get("message", "")
    return None


def spec(case: Case, health: str, service: str = "api") -> str:
    """A good spec whose one service has a health check."""
    head, tail = case.good.split(f"  {service}:\n")
    return f"{head}  {service}:\n    health: {health}\n{tail}"


def check(target: Target, **options: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in options.items())
    return f'{{http: "{target.url}", interval: 10ms{more}}}'


async def test_from_a_deploy_to_an_outage_and_back(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case, http_target(503, 503, 200) as target:
        case.commit(spec(case, check(target)))
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH
        assert len(target.asked) == 3
        assert healthy(case) == ("True", "ReconciliationSucceeded", "")
        # Asked once more in each pass, which changes nothing.
        again = await case.reconcile(expect=0)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
        assert len(target.asked) == 4
        # Ill: told, and nothing is done about it.
        target.answers = [500]
        ill = await case.reconcile(expect=0)
        assert ill.document["steps"] == []
        assert healthy(case) == ("False", UNHEALTHY, "HTTP 500")
        assert case.ready(API)[0] == "True"
        assert f"not healthy resource={API}" in ill.stderr or "not healthy" in ill.stderr
        assert (await case.reconcile(expect=0)).document["statusCommit"] is None
        target.answers = [200]
        await case.reconcile(expect=0)
        assert healthy(case) == ("True", "ReconciliationSucceeded", "")
        assert case.deployed() == BOTH


async def test_a_deploy_that_does_not_become_healthy_has_failed(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case, http_target(503) as target:
        text = spec(case, check(target, timeout="5s"))
        case.commit(text.replace("  database:\n", "  database:\n    depends_on: [api]\n"))
        ran = await case.reconcile(expect=4)
        outcomes = ran.document["outcomes"]
        assert (outcomes[API]["state"], outcomes[API]["reason"]) == ("failed", UNHEALTHY)
        told = f"{API}: deployed, and not healthy within 5s (http): HTTP 503"
        assert outcomes[API]["message"] == told
        assert case.ready(API) == ("False", UNHEALTHY, told)
        assert healthy(case) == ("False", UNHEALTHY, told)
        # What depends on it waits, and the next pass tries again.
        assert outcomes["services/staging/database"]["state"] == "blocked"
        assert case.deployed() == {"api": ["v1.0.0"]}
        target.answers = [200]
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0", "v1.0.0"], "database": ["v1.0.0"]}


async def test_another_check_deploys_nothing_and_is_made_at_once(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case, http_target(200) as target:
        case.commit(spec(case, check(target)))
        await case.reconcile(expect=0)
        case.commit(spec(case, '"tcp://127.0.0.1:1"'))
        planned = await case.plan("--detailed-exitcode", expect=0)
        assert planned.document["steps"] == []
        note = f"{API}: its `health` changed; it is checked anew, and nothing is deployed"
        assert note in planned.document["notes"]
        await case.reconcile(expect=0)
        assert healthy(case) == ("False", UNHEALTHY, "connection refused")
        assert note not in (await case.plan(expect=0)).document["notes"]
        # A command is run once, when it is new.
        ran = case.world.root / "ran"
        command = f'{{command: [sh, -c, "echo $TRUEUP_TAG >> {ran}"]}}'
        case.commit(spec(case, command))
        await case.reconcile(expect=0)
        await case.reconcile(expect=0)
        assert ran.read_text() == "v1.0.0\n"
        assert healthy(case) == ("True", "ReconciliationSucceeded", "")
        case.commit(case.good)
        await case.reconcile(expect=0)
        assert healthy(case) is None
        assert case.deployed() == BOTH


async def test_a_server_that_says_nothing_holds_up_no_pass(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case, http_target(200, SILENT) as target:
        case.commit(spec(case, check(target)))
        await case.reconcile(expect=0)
        await case.reconcile(expect=0)
        assert healthy(case) == ("False", UNHEALTHY, "no answer within 3s")


async def test_a_release_that_is_not_healthy_is_returned_from(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case, http_target(200) as target:
        target.choose = lambda: 503 if case.deployed()["api"][-1] == "v1.0.1" else 200
        text = spec(case, check(target, timeout="5s"))
        release = "{from: main, cut: external}"
        case.commit(text.replace(release, f"{release}\n    on_failure: rollback"))
        await case.reconcile(expect=0)
        case.release("v1.0.1")
        await case.reconcile(expect=4)
        assert case.deployed()["api"] == ["v1.0.0", "v1.0.1", "v1.0.0"]
        assert healthy(case) == ("True", "ReconciliationSucceeded", "")
        unit = case.status("environments/staging")["units"]["app"]
        assert (unit["release"]["tag"], unit["release"]["kind"]) == ("v1.0.0", "rollback")
        assert unit["history"][0]["reason"] == f"{API}: {UNHEALTHY}"


async def test_a_newer_release_ends_the_wait_for_a_bad_one(tmp_path: Path) -> None:
    """The wait would take an hour; the tag is made once the bad release was asked, and is seen by a look."""
    async with make_case(tmp_path) as case, http_target(503) as target:
        case.commit(spec(case, check(target, timeout="1h")))
        asked = trio.Event()
        target.on_ask = asked.set
        done: list[Any] = []

        async def one_pass() -> None:
            done.append(await case.reconcile(expect=4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_pass)
            await asked.wait()
            await trio.to_thread.run_sync(case.release, "v1.0.1")
        outcome = done[0].document["outcomes"][API]
        assert (outcome["state"], outcome["reason"]) == ("failed", "Superseded")
        assert "tags/v1.0.1 moved" in outcome["message"]
        assert healthy(case) == ("Unknown", "Superseded", "not checked: its deploy did not get that far")
        target.answers = [200]
        await case.reconcile(expect=0)
        assert case.deployed()["api"] == ["v1.0.0", "v1.0.1"]
