"""Variables that several places give: told by name with who won, by every verb that can tell."""

from pathlib import Path

from tests.bad_world import DATABASE, SERVICES, Case, checked, make_case
from tests.canaries import canary

NOTE = f"{DATABASE}: some variables are given more than once: env wins over secrets/local for DB_PASSWORD"


def colliding(case: Case) -> str:
    return case.head + SERVICES.replace("    deploy:", "    env: {DB_PASSWORD: not-secret}\n    deploy:", 1)


async def test_a_collision_is_told_by_validate_plan_and_pass(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        assert (await case.plan(expect=0)).document["notes"] == []
        case.commit(colliding(case))
        pushed = ("validate", "--spec-repo", case.world.spec.url)
        validated = checked(await case.world.trueup(*pushed))
        assert f"note: {NOTE}" in validated.stderr.splitlines()
        document = checked(await case.world.trueup(*pushed, "-o", "json"))
        assert document.document == {
            "version": 1,
            "valid": True,
            "services": 2,
            "projects": 0,
            "nodes": 0,
            "problems": [],
            "notes": [NOTE],
        }
        assert document.stderr == ""
        as_json = await case.plan(expect=0)
        assert as_json.document["notes"] == [NOTE]
        table = checked(await case.world.trueup("plan"))
        assert f"note: {NOTE}" in table.stderr.splitlines()
        done = await case.reconcile(expect=0)
        assert done.document["notes"] == [NOTE]
        logged = [line for line in done.stderr.splitlines() if NOTE in line]
        assert len(logged) == 1
        # It decides who wins, and is no reason to act again.
        assert (await case.plan("--detailed-exitcode", expect=0)).document["steps"] == []
        for ran in (validated, as_json, table, done):
            assert canary("db-password") not in ran.stdout + ran.stderr
