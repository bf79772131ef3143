"""A deploy that fails when only a secret changed: its environment holds, and lets go by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bad_world import API, DATABASE, Case, make_case
from tests.canaries import canary

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    if os.environ.get("DB_MODE") == "bad":
        raise SystemExit(5)
    with (Path({deployed!r}) / os.environ["TRUEUP_SERVICE"]).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
"""
HELD = "environments/staging"


def mode(case: Case, text: str) -> None:
    """What the source has: a password, and the word at which the task fails or not."""
    case.env_file.write_text(f"DB_PASSWORD={canary('db-password')}\nDB_MODE={text}\n")


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    """Both services deployed at v1.0.1; the database's task fails where DB_MODE is bad."""
    async with make_case(tmp_path) as made:
        made.world.app.commit({"tasks.py": TASKS.format(deployed=str(made.world.deployed))})
        made.world.app.tag("v1.0.1")
        mode(made, "good")
        made.commit(made.good.replace("keys: [DB_PASSWORD]", "keys: [DB_PASSWORD, DB_MODE]"))
        await made.reconcile(expect=0)
        yield made


def released(case: Case) -> str:
    return str(case.status(HELD)["units"]["app"]["release"]["tag"])


async def test_a_secret_that_breaks_a_deploy_holds_the_release_until_it_is_mended(case: Case) -> None:
    mode(case, "bad")
    await case.reconcile(expect=4)
    [hold] = case.status(HELD)["holds"]
    assert (hold["reason"], hold["resource"], hold["keys"]) == ("SecretChangeFailed", DATABASE, ["DB_MODE"])
    status, reason, message = case.ready(HELD)
    assert (status, reason) == ("False", "HoldActive")
    assert DATABASE in message
    assert released(case) == "v1.0.1"

    case.release("v1.1.0")
    planned = (await case.plan(expect=0)).document
    assert [(f["resource"], f["reason"]) for f in planned["findings"]] == [(HELD, "HoldActive")]
    assert [step["resource"] for step in planned["steps"]] == [DATABASE]
    held = (await case.reconcile(expect=4)).document
    assert set(held["outcomes"]) == {DATABASE}
    assert released(case) == "v1.0.1"
    assert "v1.1.0 of app waits" in case.ready(HELD)[2]
    assert case.deployed() == {"api": ["v1.0.1"], "database": ["v1.0.1"]}
    commits = case.world.status_commits()
    await case.reconcile(expect=4)
    assert case.world.status_commits() == commits

    mode(case, "mended")
    await case.reconcile(expect=0)
    assert "holds" not in case.status(HELD)
    assert case.deployed() == {"api": ["v1.0.1"], "database": ["v1.0.1", "v1.0.1"]}
    await case.reconcile(expect=0)
    assert released(case) == "v1.1.0"
    assert case.deployed() == {"api": ["v1.0.1", "v1.1.0"], "database": ["v1.0.1", "v1.0.1", "v1.1.0"]}
    assert case.ready(HELD)[:2] == ("True", "ReconciliationSucceeded")


async def test_a_service_that_leaves_the_spec_ends_its_hold(case: Case) -> None:
    mode(case, "bad")
    await case.reconcile(expect=4)
    case.release("v1.1.0")
    without_database = case.good[: case.good.index("  database:")] + case.good[case.good.index("  api:") :]
    case.commit(without_database)
    await case.reconcile(expect=0)
    assert "holds" not in case.status(HELD)
    assert released(case) == "v1.1.0"
    assert case.deployed()["api"] == ["v1.0.1", "v1.1.0"]


async def test_a_failure_with_another_change_holds_nothing(case: Case) -> None:
    mode(case, "bad")
    case.release("v1.1.0")
    await case.reconcile(expect=4)
    assert "holds" not in case.status(HELD)
    assert case.ready(DATABASE)[1] == "DeployFailed"
    assert case.ready(API)[0] == "True"
    case.release("v1.2.0")
    await case.reconcile(expect=4)
    assert released(case) == "v1.2.0"
