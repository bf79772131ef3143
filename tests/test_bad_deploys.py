"""Deploys that fail: what depends on them waits, the others go on, and the next pass tries again."""

import os
from pathlib import Path

import pytest

from tests.bad_world import API, BOTH, DATABASE, error, make_case
from tests.canaries import canary

FAULTS = {
    "fails": (
        "deploy: {kind: invoke, task: broken}",
        "DeployFailed",
        "`invoke broken` ended with exit code 7 at v1.0.0",
    ),
    "is not there": (
        "deploy: {kind: invoke, task: deplo}",
        "DeployFailed",
        "the repository has no task 'deplo' at v1.0.0; `invoke --list` there shows those it has",
    ),
    "has no directory": (
        "deploy: {kind: invoke, task: deploy, workdir: nowhere}",
        "DeployFailed",
        "workdir 'nowhere' is not a directory in the repository at v1.0.0",
    ),
    "takes too long": (
        "deploy: {kind: invoke, task: hold, timeout: 1s}",
        "Timeout",
        "`invoke hold` was ended after its timeout of 1s",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_task_that(tmp_path: Path, fault: str) -> None:
    deploy, reason, told = FAULTS[fault]
    async with make_case(tmp_path) as case:
        os.mkfifo(case.world.root / "held")
        good = case.good.replace("  api:\n", "  api:\n    depends_on: [database]\n").rstrip()
        good += (
            "\n  other: {repository: app, deploy: {kind: invoke, task: deploy}, environments: [staging]}\n"
        )
        case.commit(good.replace("deploy: {kind: invoke, task: deploy}", deploy, 1))
        ran = await case.reconcile(expect=4)
        assert case.deployed() == {"other": ["v1.0.0"]}
        failed = ran.document["outcomes"][DATABASE]
        assert (failed["state"], failed["reason"]) == ("failed", reason)
        assert failed["message"].startswith(f"{DATABASE}: {told}")
        assert case.ready(DATABASE)[:2] == ("False", reason)
        assert f"resource={DATABASE}" in ran.stderr and told in ran.stderr
        blocked = ran.document["outcomes"][API]
        assert (blocked["state"], blocked["reason"]) == ("blocked", "DependencyNotReady")
        assert blocked["message"] == f"waits for {DATABASE}, which failed"
        assert case.ready(API)[:2] == ("False", "DependencyNotReady")
        if fault == "fails":
            assert "the password is ***" in failed["message"]
            assert canary("db-password") not in ran.stdout + ran.stderr
        # It is tried again until it works; the others are left alone.
        again = await case.reconcile(expect=4)
        assert {step["resource"] for step in again.document["steps"]} == {API, DATABASE}
        case.commit(good)
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH | {"other": ["v1.0.0"]}


async def test_variables_of_the_primary_itself_are_not_given_away(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("    secrets:", "    environ: [WEBHOOK_SECRET]\n    secrets:"))
        ran = await case.reconcile(expect=4, WEBHOOK_SECRET=canary("webhook"))
        assert error(ran) == (
            f"error: {DATABASE}: SettingsInvalid: WEBHOOK_SECRET is the primary's own and is given to "
            "nothing that a spec names; take it out of the service's `environ`"
        )
        assert case.deployed() == {"api": ["v1.0.0"]}
