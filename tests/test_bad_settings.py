"""Keys, settings and flags that are missing or wrong, and two primaries on one state directory."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.bad_world import BOTH, DATABASE, Case, checked, error, errors, make_case
from tests.canaries import may_hold


async def test_without_the_master_key(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        commits = case.world.status_commits()
        (case.world.state / "master.key").unlink()
        for command in (["reconcile"], ["plan"], ["key", "show"]):
            ran = checked(await case.world.trueup(*command, expect=1))
            assert error(ran) == (
                f"error: there is no master key at {case.world.state}/master.key; "
                "make one with `trueup key new`, or restore your backup"
            )
            assert ran.stdout == ""
        assert case.world.status_commits() == commits
        assert case.deployed() == BOTH


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty; it reads trueup-master-1:<44 characters of base64>; make one with `trueup key new`"),
        ("hello\n", "does not hold a trueup master key; it reads trueup-master-1:<44 characters of base64>"),
        ("trueup-master-1:AAAA\n", "holds a master key of 3 bytes, not 32"),
        ("trueup-master-1:" + "!" * 44, "holds a damaged master key"),
        ("x" * 100_000, "is too large for a master key; name the file that holds the key"),
    ],
)
async def test_a_file_that_is_no_master_key(tmp_path: Path, text: str, told: str) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        (case.world.state / "master.key").write_text(text)
        ran = await case.reconcile(expect=1)
        assert told in error(ran)
        assert f"{case.world.state}/master.key" in error(ran)
        assert case.deployed() == {}


async def test_a_master_key_that_others_can_read(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        key = case.world.state / "master.key"
        key.chmod(0o640)
        ran = await case.reconcile(expect=0)
        assert f"{key} is open to other users (mode 0640); run: chmod 600 {key}" in ran.stderr


async def test_another_master_key_is_not_taken_for_this_one(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        commits = case.world.status_commits()
        case.release("v1.1.0")
        other = case.world.root / "other"
        may_hold(other / "master.key")
        await case.world.trueup("key", "new", "--state-dir", str(other))
        for command in ("reconcile", "plan", "get"):
            ran = checked(await case.world.trueup(command, "--state-dir", str(other), expect=1))
            assert error(ran).startswith(
                f"error: the status branch trueup/status at {commits[0][:12]} was signed"
            )
            assert "with another master key (" in error(ran)
            assert error(ran).endswith(
                "; use the key it was signed with (`trueup key show` tells keys apart), or start over by "
                "deleting the branch: `git push <repository> :refs/heads/trueup/status`"
            )
        assert case.world.status_commits() == commits
        assert case.deployed() == BOTH
        # A key is never overwritten: it would be lost.
        again = checked(await case.world.trueup("key", "new", expect=1))
        assert "exists and will not be overwritten" in error(again)
        # The advice works: with the right key all goes on.
        shutil.copy(case.world.state / "master.key", other / "master.key")
        ran = await case.reconcile("--state-dir", str(other), expect=0)
        assert {step["reason"].partition(":")[0] for step in ran.document["steps"]} == {"changed"}


async def test_a_status_branch_that_somebody_else_wrote(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        case.world.spec.commit({"services/staging/api.yaml": "forged: true\n"}, branch="trueup/status")
        ran = await case.reconcile(expect=1)
        assert error(ran).startswith("error: the status branch trueup/status at ")
        assert "is not signed by trueup; set the branch back to the last commit" in error(ran)
        assert case.deployed() == BOTH


async def test_wrong_settings_are_told_together(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        ran = await case.reconcile(
            expect=1,
            TRUEUP_ALLOW_LOCAL_REPOS="perhaps",
            TRUEUP_INTERVAL="often",
            SYNC_TCP_ADDR="nine",
            TRUEUP_LOG_FORMAT="xml",
            WEBHOOK_SECRET_FILE=str(case.world.root / "nowhere"),
        )
        names = [line.split(": ")[1] for line in errors(ran)]
        assert sorted(names) == [
            "SYNC_TCP_ADDR",
            "TRUEUP_ALLOW_LOCAL_REPOS",
            "TRUEUP_INTERVAL",
            "TRUEUP_LOG_FORMAT",
            "WEBHOOK_SECRET_FILE",
        ]
        assert "error: TRUEUP_INTERVAL: 'often' is not accepted; give a duration such as 60s, 5m or 24h" in (
            errors(ran)
        )
        unset = await case.reconcile(expect=1, TRUEUP_SPEC_REPO="")
        assert (
            error(unset) == "error: no spec repository is set; set TRUEUP_SPEC_REPO, or give --spec-repo URL"
        )
        patience = await case.reconcile("--wait-agents", "soon", expect=1)
        assert error(patience) == (
            "error: --wait-agents: 'soon' is not accepted; give a duration such as 60s, 5m or 24h"
        )
        assert case.deployed() == {}
        assert not (case.world.state / "journal.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reconcile", "--stat-dir", "x"], "No such option '--stat-dir'. Did you mean '--state-dir'?"),
        (["recncile"], "No such command 'recncile'. Did you mean 'reconcile'?"),
        (["plan", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml' is not one of"),
        (["plan", "too", "much"], "Got unexpected extra arguments (too much)"),
        (["get", "-o"], "Option '-o' requires an argument."),
        (["node", "add"], "Missing argument 'NAME'."),
        (
            ["get", "services/staging/web"],
            "the status branch has nothing of services/staging/web; see all with",
        ),
        (["node", "add", "web 1"], "node 'web 1' cannot be added: `web 1` will not do; a name has"),
        (["node", "add", "a: b", "--dry-run"], "node 'a: b' cannot be added: `a: b` will not do; a name has"),
        (["node", "add", "web-1", "--label", "group"], "--label 'group' is not accepted; give KEY=VALUE"),
        (["init", "/proc/nowhere"], "cannot be written"),
        (["key", "new", "--state-dir", "/proc/nowhere"], "/proc/nowhere cannot be made"),
        (["reconcile", "--state-dir", "/dev/null"], "/dev/null"),
        (["get", "--state-dir", "/proc/nowhere"], "/proc/nowhere"),
        (["get", "--state-dir", "/dev/null"], "/dev/null"),
        (["reconcile", "--branch", "--force"], "--branch: '--force' is not accepted"),
        (["reconcile", "--branch", "a..b"], "a..b"),
    ],
)
async def test_wrong_usage_fails_with_the_code_for_failure(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    """Never with 2, which says that changes are pending."""
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        ran = checked(await case.world.trueup(*arguments, expect=1))
        assert told in errors(ran)[-1]
        assert ran.stdout == ""
        assert case.deployed() == {}


async def test_a_second_primary_on_the_same_state_directory(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("task: deploy", "task: hold", 1))
        await hold_a_pass_open(case)
        assert case.world.status_commits()


async def hold_a_pass_open(case: Case) -> None:
    """A first pass whose task waits for a pipe to be written; meanwhile a second one is tried."""
    pipe = case.world.root / "held"
    os.mkfifo(pipe)
    done: list[Any] = []

    async def first_pass() -> None:
        done.append(await case.reconcile(expect=0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first_pass)
        # Opening it waits until the task has opened its own end.
        writer = await trio.to_thread.run_sync(pipe.open, "wb", abandon_on_cancel=True)
        try:
            second = await case.reconcile(expect=1)
            assert error(second) == (
                f"error: another trueup works on {case.world.state}; wait for it, or give --state-dir"
            )
            assert second.stdout == ""
            # Looking is allowed.
            looked = await case.plan(expect=0)
            assert DATABASE in {step["resource"] for step in looked.document["steps"]}
        finally:
            writer.close()
    assert {outcome["state"] for outcome in done[0].document["outcomes"].values()} == {"succeeded"}
