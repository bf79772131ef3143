"""`trueup secrets check` as a process, against the double of GitHub: what it says and leads to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from reconciler.journal import Journal
from tests.bad_world import Case, make_case
from tests.canaries import MARKER, canary, may_hold
from tests.contracts.github_double import Fault, GitHubDouble
from tests.processlist import ProcessList
from tests.world import Ran

SOURCE, TARGET = "acme/devops", "acme/billing"
SPEC = """\
  devops: {{kind: github_actions, repo: {source}, token: {{env: DEVOPS_TOKEN}}, export_event: hand-over}}
"""


@pytest.fixture
async def github() -> AsyncIterator[GitHubDouble]:
    with GitHubDouble() as double:
        double.add(SOURCE, TARGET, "acme", f"{TARGET}#prod")
        double.workflows.add(SOURCE)
        double.store(SOURCE, DB_USER=canary("user"), DB_PASSWORD=canary("password"))
        yield double


@pytest.fixture
def environment(tmp_path: Path, github: GitHubDouble) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GITHUB_API_URL": github.url,
        "GH_PAT": github.token,
        "SOURCE_SECRETS_REPO": SOURCE,
    }


async def check(environment: dict[str, str], *arguments: str, expect: int = 0, **changes: str) -> Ran:
    command = [sys.executable, "-m", "reconciler", "secrets", "check", *arguments]
    given = {name: value for name, value in (environment | changes).items() if value}
    with trio.fail_after(60):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=given, cwd=environment["HOME"]
        )
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert MARKER not in ran.stdout + ran.stderr
    assert ran.exit_code == expect, ran.stdout + ran.stderr
    return ran


async def test_what_is_missing_is_exported(
    github: GitHubDouble, environment: dict[str, str], process_list: ProcessList
) -> None:
    github.store("acme", SHARED=canary("shared"))
    ran = await check(environment, TARGET, "DB_USER", "DB_PASSWORD", "SHARED")
    assert ran.stdout == "DB_USER: exported\nDB_PASSWORD: exported\nSHARED: present (organisation)\n"
    assert github.opened(TARGET) == {"DB_USER": canary("user"), "DB_PASSWORD": canary("password")}
    assert [each.payload for each in github.dispatches] == [
        {"secret_names": ["DB_USER", "DB_PASSWORD"], "target_repo": TARGET}
    ]
    again = await check(environment, TARGET, "DB_USER", "db_password")
    assert again.stdout == "DB_USER: present (repository)\nDB_PASSWORD: present (repository)\n"
    assert len(github.dispatches) == 1


async def test_a_dry_run_only_reports(github: GitHubDouble, environment: dict[str, str]) -> None:
    github.store(TARGET, DB_USER=canary("user"))
    ran = await check(environment, TARGET, "DB_USER", "DB_PASSWORD", "--dry-run", expect=1)
    assert ran.stdout == "DB_USER: present (repository)\nDB_PASSWORD: missing\n"
    assert github.dispatches == []
    await check(environment, TARGET, "DB_USER", "--dry-run")


async def test_one_that_the_source_has_not_fails_at_once(
    github: GitHubDouble, environment: dict[str, str]
) -> None:
    ran = await check(environment, TARGET, "DB_USER", "TYPO", "-o", "json", expect=1)
    user, typo = ran.document["keys"]
    assert (user["name"], user["state"], user["where"]) == ("DB_USER", "exported", "repository")
    assert (typo["name"], typo["state"], typo["reason"]) == ("TYPO", "failed", "SecretNotFound")
    assert typo["error"].startswith("acme/devops has no secret TYPO")
    assert (ran.document["repository"], ran.document["source"]) == (TARGET, SOURCE)
    assert ran.document["dryRun"] is False


async def test_an_environment_at_github(github: GitHubDouble, environment: dict[str, str]) -> None:
    github.store(TARGET, DB_USER=canary("own"))
    await check(environment, TARGET, "DB_USER", "--environment", "prod")
    assert github.opened(f"{TARGET}#prod") == {"DB_USER": canary("user")}


async def test_what_is_newer_in_the_source_is_exported_on_demand(
    github: GitHubDouble, environment: dict[str, str]
) -> None:
    github.store(TARGET, DB_USER=canary("before"))
    github.store(SOURCE, DB_USER=canary("after"))
    assert (await check(environment, TARGET, "DB_USER")).stdout == "DB_USER: present (repository)\n"
    ran = await check(environment, TARGET, "DB_USER", "--refresh", "--dry-run", expect=1)
    assert ran.stdout == "DB_USER: outdated\n"
    await check(environment, TARGET, "DB_USER", "--refresh")
    assert github.opened(TARGET) == {"DB_USER": canary("after")}


async def test_a_source_without_the_workflow_ends_by_time(
    github: GitHubDouble, environment: dict[str, str]
) -> None:
    github.workflows.clear()
    ran = await check(environment, TARGET, "DB_USER", "--timeout", "50ms", expect=1)
    assert ran.stdout.startswith("DB_USER: failed: Timeout waiting for DB_USER (not found after 0.05s); see")


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    [
        ([TARGET, "KEY"], {"GH_PAT": ""}, "No auth token (GH_PAT or GITHUB_TOKEN) available; set one"),
        (["acme", "KEY"], {}, "'acme' is no repository; write OWNER/REPO"),
        (["acme/..", "KEY"], {}, "'acme/..' is no repository"),
        ([TARGET, "1KEY"], {}, "'1KEY' has other characters than letters, digits and _"),
        ([TARGET, "GITHUB_KEY"], {}, "begins with GITHUB_"),
        ([TARGET, "KEY"], {"SOURCE_SECRETS_REPO": "a/b/c/d"}, "'a/b/c/d' is no repository"),
        ([TARGET, "KEY"], {"SOURCE_SECRETS_REPO": ""}, "it is not known where the secrets come from"),
        ([TARGET, "KEY", "--from", "x", "--source-repo", SOURCE], {}, "exclude each other"),
        (["acme/nowhere", "KEY"], {}, "acme/nowhere: not there, or the token has no right to see it"),
        ([TARGET, "KEY"], {"GH_PAT": "wrong"}, "GitHub does not accept the token (http 401)"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    github: GitHubDouble,
    environment: dict[str, str],
    arguments: list[str],
    changes: dict[str, str],
    told: str,
) -> None:
    ran = await check(environment, *arguments, expect=1, **changes)
    assert told in ran.stderr
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert github.dispatches == []


async def test_not_being_told_is_not_the_same_as_missing(
    github: GitHubDouble, environment: dict[str, str]
) -> None:
    github.fail_with(Fault(500), on="list")
    ran = await check(environment, TARGET, "DB_USER", expect=1)
    assert "GitHub has a fault (http 500)" in ran.stderr
    assert github.dispatches == []


async def test_a_token_that_may_not_list_the_source_can_still_ask_it(
    github: GitHubDouble, environment: dict[str, str]
) -> None:
    # The lists come in this order: the target's own, the source's, and then the target's again.
    github.fail_with(Fault(403), on="list", place=SOURCE)
    assert (await check(environment, TARGET, "DB_USER")).stdout == "DB_USER: exported\n"


async def test_the_token_may_be_in_a_file(
    tmp_path: Path, github: GitHubDouble, environment: dict[str, str]
) -> None:
    file = may_hold(tmp_path / "token")
    file.write_text(github.token + "\n")
    ran = await check(environment, TARGET, "DB_USER", GH_PAT="", GITHUB_TOKEN_FILE=str(file))
    assert ran.stdout == "DB_USER: exported\n"


# --- from a source of a spec ---------------------------------------------------------------------


@pytest.fixture
async def case(tmp_path: Path, github: GitHubDouble) -> AsyncIterator[Case]:
    async with make_case(tmp_path) as made:
        made.world.environment |= {"GITHUB_API_URL": github.url, "DEVOPS_TOKEN": github.token}
        yield made


async def from_spec(case: Case, *arguments: str, expect: int = 0) -> Any:
    return await case.world.trueup("secrets", "check", TARGET, "DB_USER", *arguments, expect=expect)


async def test_a_source_of_the_spec_with_its_token(case: Case, github: GitHubDouble) -> None:
    case.commit(case.head + SPEC.format(source=SOURCE) + "services: {}\n")
    assert (await from_spec(case)).stdout == "DB_USER: exported\n"
    assert [each.event_type for each in github.dispatches] == ["hand-over"]
    assert (await from_spec(case, "--from", "devops")).stdout == "DB_USER: present (repository)\n"
    with Journal(case.world.state / "journal.sqlite") as journal:
        reads = journal.secret_reads.recent("DB_USER")
    assert [(each.purpose, each.source) for each in reads] == [
        ("check", SOURCE),
        ("export", SOURCE),
        ("check", SOURCE),
    ]
    assert {each.who.partition(" for ")[2] for each in reads} == {TARGET}
    ran = await from_spec(case, "--from", "local", expect=1)
    assert "--from local: the spec has no such source; give --from with a source of the kind" in ran.stderr


async def test_without_a_source_in_the_spec(case: Case) -> None:
    case.commit(case.good)
    assert "which source is not said" in (await from_spec(case, expect=1)).stderr


def test_the_help_is_there() -> None:
    command = [sys.executable, "-m", "reconciler", "secrets", "check", "--help"]
    assert b"OWNER/REPO KEY..." in subprocess.run(command, capture_output=True, check=True).stdout
