"""`trueup secrets …` against a real world: what each verb says and changes, and that no value shows."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.bad_world import DATABASE, Case, checked, make_case
from tests.canaries import canary
from tests.world import Ran

NAMES = {"DB_PASSWORD": "db-password"}


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    async with make_case(tmp_path) as made:
        yield made


async def run(case: Case, verb: str, *arguments: str, expect: int = 0) -> Ran:
    """A verb of the group. Whatever it prints, no value is in it."""
    ran = checked(await case.world.trueup("secrets", verb, *arguments, expect=expect))
    for name in NAMES.values():
        assert canary(name) not in ran.stdout + ran.stderr
    return ran


def only_source(document: Any) -> Any:
    [source] = document["sources"]
    [environment] = source["environments"]
    return source | environment


# --- list --------------------------------------------------------------------------------------


async def test_list_shows_what_serves_and_who_uses_it(case: Case) -> None:
    case.commit(case.good)
    source = only_source((await run(case, "list", "-o", "json")).document)
    assert (source["name"], source["kind"], source["enabled"]) == ("local", "env_file", True)
    assert (source["environment"], source["state"], source["servedBy"]) == ("staging", "fresh", "local")
    assert source["keys"] == ["DB_PASSWORD"]
    assert source["errorKind"] == source["error"] == ""
    [use] = source["usedBy"]
    assert (use["resource"], use["for"], use["keys"]) == (DATABASE, "deploy", ["DB_PASSWORD"])
    table = (await run(case, "list")).stdout
    assert "DB_PASSWORD" in table
    assert DATABASE in table


async def test_list_tells_why_a_source_fails(case: Case) -> None:
    case.commit(case.good)
    case.env_file.unlink()
    source = only_source((await run(case, "list", "-o", "json", expect=4)).document)
    assert (source["state"], source["errorKind"], source["keys"]) == ("failed", "Refused", [])
    assert str(case.env_file) in source["error"]


async def test_list_can_tell_from_the_status_files_alone(case: Case) -> None:
    await case.deploy_all()
    case.env_file.unlink()
    source = only_source((await run(case, "list", "--recorded", "-o", "json")).document)
    assert (source["state"], source["keys"]) == ("fresh", ["DB_PASSWORD"])
    assert source["lastSuccess"]


# --- what a pass records -----------------------------------------------------------------------


async def test_a_pass_records_fingerprints_and_keeps_them_through_a_failure(case: Case) -> None:
    await case.deploy_all()
    known = case.status("secrets/local")
    assert set(known["fingerprints"]) == {"DB_PASSWORD"}
    case.env_file.rename(case.env_file.with_suffix(".away"))
    await case.reconcile(expect=4)
    failed = case.status("secrets/local")
    assert failed["errorKind"] == "Refused"
    assert failed["fingerprints"] == known["fingerprints"]
    assert failed["lastSuccess"] == known["lastSuccess"]
    case.env_file.with_suffix(".away").rename(case.env_file)
    case.env_file.write_text(f"DB_PASSWORD={canary('db-password-2')}\n")
    await case.reconcile(expect=0)
    assert case.status("secrets/local")["fingerprints"] != known["fingerprints"]


# --- audit -------------------------------------------------------------------------------------


async def test_audit_tells_who_got_what(case: Case) -> None:
    await case.deploy_all()
    await run(case, "list")
    reads = (await run(case, "audit", "-o", "json")).document["reads"]
    assert [(each["purpose"], each["source"], each["keys"], each["served"]) for each in reads] == [
        ("list", "local", ["DB_PASSWORD"], "env_file"),
        ("deploy", "local", ["DB_PASSWORD"], "env_file"),
    ]
    assert reads[0]["who"].startswith("user ")
    assert reads[1]["who"] == DATABASE
    assert (await run(case, "audit", "DB_PASSWORD", "-n", "1", "-o", "json")).document["reads"] == reads[:1]
    assert DATABASE in (await run(case, "audit", "local")).stdout
    assert "did you mean DB_PASSWORD" in (await run(case, "audit", "DB_PASSWD", expect=1)).stderr


async def test_a_look_goes_on_where_it_cannot_be_noted(case: Case) -> None:
    await case.deploy_all()
    journal = sqlite3.connect(case.world.state / "journal.sqlite")
    journal.execute("DROP TABLE secret_reads")
    journal.commit()
    journal.close()
    ran = await run(case, "list", "-o", "json")
    assert only_source(ran.document)["state"] == "fresh"
    assert "is not recorded" in ran.stderr
