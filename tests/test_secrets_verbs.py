"""`trueup secrets …` against a real world: what each verb says and changes, and that no value shows."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.bad_world import BOTH, DATABASE, Case, checked, make_case, use_vault
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.serving import serving
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


# --- sync, clear-cache, diff -------------------------------------------------------------------


def outcome(document: Any) -> Any:
    [source] = document["sources"]
    return source


async def test_sync_without_a_running_primary_says_what_changed(case: Case) -> None:
    await case.deploy_all()
    assert outcome((await run(case, "sync", "-o", "json")).document) == {
        "name": "local",
        "success": True,
        "message": "Secret local synced successfully",
        "changes": {"appeared": [], "changed": [], "vanished": []},
    }
    case.env_file.write_text(f"DB_PASSWORD={canary('db-password-2')}\nNEW={canary('new')}\n")
    ran = await run(case, "sync", "local")
    assert "appeared: NEW; changed: DB_PASSWORD" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "Secret local synced successfully"
    assert case.deployed() == BOTH
    assert "did you mean local?" in (await run(case, "sync", "locl", expect=1)).stderr
    case.env_file.unlink()
    failed = outcome((await run(case, "sync", "-o", "json", expect=1)).document)
    assert (failed["success"], "there is no such file" in failed["message"]) == (False, True)
    purposes = [each["purpose"] for each in (await run(case, "audit", "-o", "json")).document["reads"]]
    assert purposes == ["sync", "sync", "deploy"]


async def test_the_running_primary_syncs_and_clears_for_the_command(case: Case) -> None:
    case.commit(case.good)
    async with serving(case.world) as primary:
        await primary.said("step applied", resource=DATABASE)
        case.env_file.write_text(f"DB_PASSWORD={canary('db-password-2')}\n")
        told = len(primary.lines)
        answer = outcome((await run(case, "sync", "-o", "json")).document)
        assert answer["message"] == "Secret local synced successfully"
        assert answer["changes"]["changed"] == ["DB_PASSWORD"]
        listed = only_source((await run(case, "list", "-o", "json")).document)
        assert (listed["keys"], listed["servedBy"]) == (["DB_PASSWORD"], "local")
        await primary.said("step applied", after=told, resource=DATABASE)
        cleared = await run(case, "clear-cache")
        assert cleared.stdout == "All secrets cache cleared\n"
        assert (await run(case, "clear-cache", "local")).stdout == "Cache of secret local cleared\n"
        assert "Secret nothing not found" in (await run(case, "clear-cache", "nothing", expect=1)).stderr
        assert await primary.end(signal.SIGTERM) == 0


async def test_clear_cache_without_a_running_primary(case: Case) -> None:
    case.commit(case.good)
    assert (await run(case, "clear-cache")).stdout.startswith("nothing is cached: no primary is running here")
    with InfisicalDouble() as double:
        double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("db-password")}
        use_vault(case, double)
        case.world.environment["TRUEUP_SECRET_CACHE"] = "disk"
        await case.reconcile(expect=0)
        kept = case.world.state / "secret-cache"
        assert len(list(kept.iterdir())) == 1
        # Also from a shell that does not have the variable of the primary.
        del case.world.environment["TRUEUP_SECRET_CACHE"]
        assert (await run(case, "clear-cache")).stdout == "All secrets cache cleared\n"
        case.world.environment["TRUEUP_SECRET_CACHE"] = "disk"
        assert list(kept.iterdir()) == []
        assert "nothing of it is on disk" in (await run(case, "clear-cache")).stdout
        assert "did you mean vault?" in (await run(case, "clear-cache", "vaul", expect=1)).stderr


async def test_a_server_that_is_named_and_not_there_is_an_error(case: Case) -> None:
    case.commit(case.good)
    case.world.environment |= {"TRUEUP_SERVER": "http://127.0.0.1:1", "TRUEUP_TOKEN": canary("api-token")}
    for verb in ("list", "sync", "clear-cache"):
        assert "no running primary at http://127.0.0.1:1" in (await run(case, verb, expect=1)).stderr


async def test_diff_names_what_changed_and_what_it_would_touch(case: Case) -> None:
    await case.deploy_all()
    assert (await run(case, "diff", "--detailed-exitcode")).stdout == "no secret changed\n"
    case.env_file.write_text(f"DB_PASSWORD={canary('db-password-2')}\nNEW={canary('new')}\n")
    document = (await run(case, "diff", "-o", "json", "--detailed-exitcode", expect=2)).document
    assert document["sources"] == [
        {"name": "local", "compared": True, "appeared": ["NEW"], "changed": ["DB_PASSWORD"], "vanished": []}
    ]
    assert document["steps"] == [
        {
            "resource": DATABASE,
            "action": "deploy",
            "reason": "changed: secret DB_PASSWORD",
            "changes": ["secret DB_PASSWORD"],
            "secrets": [{"source": "local", "key": "DB_PASSWORD", "name": "DB_PASSWORD"}],
        }
    ]
    assert "local/DB_PASSWORD" in (await run(case, "diff", "local")).stdout
    await case.reconcile(expect=0)
    assert (await run(case, "diff")).stdout == "no secret changed\n"
    # A source that does not answer says nothing of what changed.
    case.env_file.unlink()
    ran = await run(case, "diff", "-o", "json", expect=1)
    assert ran.document["failed"] == ["local"]
    assert ran.document["sources"][0]["compared"] is False
    assert ran.document["steps"] == []


async def test_diff_asks_the_sources_and_not_the_cache_on_disk(case: Case) -> None:
    with InfisicalDouble() as double:
        place = (double.project, "staging", "/")
        double.secrets[place] = {"DB_PASSWORD": canary("db-password")}
        use_vault(case, double)
        case.world.environment["TRUEUP_SECRET_CACHE"] = "disk"
        await case.reconcile(expect=0)
        double.secrets[place] = {"DB_PASSWORD": canary("db-password-2")}
        document = (await run(case, "diff", "-o", "json", "--detailed-exitcode", expect=2)).document
        [vault] = [source for source in document["sources"] if source["name"] == "vault"]
        assert vault["changed"] == ["DB_PASSWORD"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_state_directory_of_somebody_else(case: Case) -> None:
    case.commit(case.good)
    case.world.state.chmod(0o700)
    command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--", sys.executable]
    for verb in ("list", "sync", "audit", "diff"):
        locked = [*command[1:], "-m", "reconciler", "secrets", verb]
        os.chown(case.world.state, 12345, 12345)
        ran = await case.world.run(locked, python="setpriv")
        assert ran.exit_code == 1
        assert ran.stderr.count("\n") == 1 and ran.stderr.startswith("error: ")
        assert "internal error" not in ran.stderr
    os.chown(case.world.state, 0, 0)
