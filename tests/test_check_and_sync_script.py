"""`examples/github/check-and-sync-secrets.sh`, run by bash as a build does, against the double of GitHub."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canaries import MARKER, canary, may_hold
from tests.contracts.github_double import Fault, GitHubDouble, Kind
from tests.processlist import ProcessList

SCRIPT = Path(__file__).parent.parent / "examples/github/check-and-sync-secrets.sh"
SOURCE, TARGET = "acme/devops", "acme/billing"
DEADLINE = 60.0

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "jq", "git"))), reason="needs bash, curl, jq and git"
)


@pytest.fixture
def github() -> Iterator[GitHubDouble]:
    with GitHubDouble() as double:
        double.add(SOURCE, TARGET, "acme")
        double.workflows.add(SOURCE)
        yield double


class Build:
    """A build that sources the script. Its `sleep` only counts, so that nobody waits."""

    def __init__(self, directory: Path, github: GitHubDouble) -> None:
        self.directory = directory
        self.tools = directory / "bin"
        self.tools.mkdir()
        self.naps = directory / "naps"
        self.tool("sleep", f'echo "$1" >> {self.naps}')
        self.environment = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOME": str(directory),
            "GITHUB_API_URL": github.url,
            "GITHUB_REPOSITORY": TARGET,
            "SOURCE_SECRETS_REPO": SOURCE,
            "GH_PAT": github.token,
        }

    def tool(self, name: str, script: str) -> None:
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def run(self, script: str, **changes: str | None) -> tuple[int, str]:
        """Exit code and what it said; `script` runs after the file was sourced."""
        given = self.environment | changes
        environment = {name: value for name, value in given.items() if value is not None}
        ran = subprocess.run(
            ["bash", "-c", f'source "{SCRIPT}"; {script}'],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert MARKER not in ran.stdout + ran.stderr
        assert ran.stdout == ""
        return ran.returncode, ran.stdout + ran.stderr

    def check(self, *names: str, **changes: str | None) -> tuple[int, str]:
        return self.run("check_and_sync_secrets " + " ".join(names), **changes)

    @property
    def slept(self) -> list[str]:
        return self.naps.read_text().split() if self.naps.exists() else []


@pytest.fixture
def build(tmp_path: Path, github: GitHubDouble) -> Build:
    return Build(tmp_path, github)


def test_missing_secrets_are_exported_by_one_dispatch(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, DB_USER=canary("user"), DB_PASSWORD=canary("password"), OTHER=canary("other"))
    github.export_after = 2
    assert build.check("DB_USER", "DB_PASSWORD")[0] == 0
    assert github.opened(TARGET) == {"DB_USER": canary("user"), "DB_PASSWORD": canary("password")}
    [dispatched] = github.dispatches
    assert (dispatched.repo, dispatched.event_type) == (SOURCE, "export-secret")
    assert dispatched.payload == {"secret_names": ["DB_USER", "DB_PASSWORD"], "target_repo": TARGET}
    assert build.slept == ["2"] * 3


def test_a_single_name_goes_in_the_form_of_older_workflows(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, TOKEN=canary("token"))
    assert build.check("token")[0] == 0
    assert github.dispatches[0].payload == {"secret_name": "TOKEN", "target_repo": TARGET}


def test_what_is_there_is_not_exported(github: GitHubDouble, build: Build) -> None:
    github.store(TARGET, DB_USER=canary("own"))
    github.store("acme", SHARED=canary("shared"))
    code, said = build.check("DB_USER", "SHARED")
    assert (code, github.dispatches) == (0, [])
    assert "DB_USER: present (repository)" in said
    assert "SHARED: present (organisation)" in said


def test_a_list_of_several_pages_is_read_to_its_end(github: GitHubDouble, build: Build) -> None:
    github.store(TARGET, **{f"NAME_{number:03}": "x" for number in range(130)})
    assert build.check("NAME_000", "NAME_099", "NAME_129") == (
        0,
        "".join(f"NAME_{number}: present (repository)\n" for number in ("000", "099", "129")),
    )


def test_a_repository_of_a_user_has_no_organisation(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, KEY=canary("key"))
    github.fail_with(Fault(404), on="inherited")
    assert build.check("KEY")[0] == 0
    assert github.opened(TARGET) == {"KEY": canary("key")}


def test_a_dispatch_that_fails_says_why(github: GitHubDouble, build: Build) -> None:
    code, said = build.check("KEY", SOURCE_SECRETS_REPO="acme/nowhere")
    assert code == 1
    assert "Export dispatch failed (http 404)\n" in said
    assert "acme/nowhere, or its workflow export-secret.yml, is not there" in said
    assert build.slept == []


def test_a_secret_that_does_not_come(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, REAL=canary("real"))
    code, said = build.check("REAL", "TYPO")
    assert code == 1
    assert "Timeout waiting for TYPO (not found after 30s)\n" in said
    assert f"{SOURCE} itself has no secret TYPO" in said
    assert "REAL: exported\n" in said
    assert build.slept == ["2"] * 15


def test_a_source_without_the_workflow(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, KEY=canary("key"))
    github.workflows.clear()
    code, said = build.check("KEY")
    assert code == 1
    assert "Timeout waiting for KEY (not found after 30s)\n" in said
    assert "the workflow is not on its default branch" in said
    assert "no secret KEY" not in said


def test_no_token(build: Build) -> None:
    code, said = build.check("KEY", GH_PAT=None)
    assert code == 1
    assert said.startswith("No auth token (GH_PAT or GITHUB_TOKEN) available\n")


def test_the_token_of_actions_serves_where_there_is_no_other(github: GitHubDouble, build: Build) -> None:
    github.store(TARGET, KEY=canary("key"))
    assert build.check("KEY", GH_PAT=None, GITHUB_TOKEN=github.token)[0] == 0


FAULTS = [
    (Fault(401), "GitHub does not accept the token"),
    (Fault(500), "Try again later"),
    (Fault(200, body=b"<!doctype html>"), "No answer, or none of GitHub's"),
    (Fault(200, body=b'{"total_count": 3, "secrets": []}'), "No answer, or none of GitHub's"),
]
OWN_FAULTS = [
    (Fault(403), "GH_PAT needs the scopes repo and workflow"),
    (Fault(404), "is not there, or the token cannot see it"),
]


@pytest.mark.parametrize(
    ("fault", "told", "on"),
    [
        *((fault, told, "list") for fault, told in FAULTS + OWN_FAULTS),
        *((fault, told, "inherited") for fault, told in FAULTS),
    ],
)
def test_not_being_told_is_not_the_same_as_missing(
    github: GitHubDouble, build: Build, fault: Fault, told: str, on: Kind
) -> None:
    github.fail_with(fault, on=on)
    code, said = build.check("KEY")
    assert (code, github.dispatches) == (1, [])
    assert "cannot be listed (http " in said
    assert told in said


def test_an_answer_that_is_lost_while_waiting_is_asked_for_again(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, KEY=canary("key"))
    build.tool("sleep", f'echo "$1" >> {build.naps}')
    github.export_after = 1
    github.fail_after_dispatch = [Fault(502), Fault(429)]
    assert build.check("KEY")[0] == 0


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "1ST", "A-B", "'A B'", "'$(touch x)'"])
def test_names_that_github_has_not(github: GitHubDouble, build: Build, name: str) -> None:
    code, said = build.check("GOOD", name)
    assert (code, github.requests) == (1, [])
    assert said.startswith("No name of a secret")
    assert not (build.directory / "x").exists()


def test_a_token_goes_nowhere_in_the_clear(build: Build) -> None:
    code, said = build.check("KEY", GITHUB_API_URL="http://github.example")
    assert code == 1
    assert "https only" in said


def test_rotated_secrets_are_exported_anew_on_demand(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, OLD=canary("old"))
    github.store(TARGET, OLD=canary("old"), TURNED=canary("before"))
    github.store(SOURCE, TURNED=canary("after"))
    github.export_after = 1
    assert build.check("OLD", "TURNED")[0] == 0
    assert github.dispatches == []
    code, said = build.check("OLD", "TURNED", CHECK_SECRETS_REFRESH="1")
    assert code == 0
    assert "OLD: present (repository)" in said
    assert "TURNED: exported" in said
    assert github.opened(TARGET) == {"OLD": canary("old"), "TURNED": canary("after")}


def test_an_environment_of_the_source(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, KEY=canary("own"), PLAIN=canary("plain"))
    github.store(f"{SOURCE}#docs", KEY=canary("docs"))
    assert build.check("KEY", "PLAIN", SOURCE_SECRETS_REPO=f"{SOURCE}/docs")[0] == 0
    assert github.dispatches[0].payload["source_environment"] == "docs"
    assert github.opened(TARGET) == {"KEY": canary("docs"), "PLAIN": canary("plain")}


@pytest.mark.parametrize("url", ["git@github.com:acme/billing.git", "https://github.com/acme/billing", "gh"])
def test_the_repository_is_found_by_itself(github: GitHubDouble, build: Build, url: str) -> None:
    github.store(TARGET, KEY=canary("key"))
    if url == "gh":
        build.tool("gh", f"echo {TARGET}")
    else:
        build.tool("gh", "exit 1")
        subprocess.run(["git", "init", "-q", "."], cwd=build.directory, check=True)
        subprocess.run(["git", "remote", "add", "origin", url], cwd=build.directory, check=True)
    assert build.check("KEY", GITHUB_REPOSITORY=None) == (0, "KEY: present (repository)\n")


def test_the_default_source_is_the_documented_one(github: GitHubDouble, build: Build) -> None:
    github.store("Bengo-Hub/devops-k8s", KEY=canary("key"))
    github.workflows.add("Bengo-Hub/devops-k8s")
    assert build.check("KEY", SOURCE_SECRETS_REPO=None)[0] == 0
    assert github.opened(TARGET) == {"KEY": canary("key")}


def test_nothing_is_left_in_the_shell_that_sources_it(github: GitHubDouble, build: Build) -> None:
    github.store(SOURCE, KEY=canary("key"))
    before, after = (may_hold(build.directory / name) for name in ("before", "after"))
    moving = " (_|BASH_|PIPESTATUS|RANDOM|SRANDOM|EPOCH)"
    state = f"{{ declare -p | grep -vE '{moving}'; declare -f; shopt -p; set +o; }}"
    assert build.run(f"{state} > {before}; check_and_sync_secrets KEY; {state} > {after}")[0] == 0
    assert len(github.dispatches) == 1
    same = before.read_text() == after.read_text()
    assert same
    assert "set +o errexit\nset +o errtrace" in before.read_text()


def test_callers_that_are_strict_and_trace(github: GitHubDouble, build: Build) -> None:
    """The token is in the environment, and `set -x` of a build prints what it runs."""
    github.store(SOURCE, KEY=canary("key"))
    trace = may_hold(build.directory / "trace")
    build.run(f"exec 2>{trace}; set -eux; check_and_sync_secrets KEY; set +x")
    assert github.opened(TARGET) == {"KEY": canary("key")}
    assert canary("github-token") not in trace.read_text()
    code, said = build.run("set -eu; check_and_sync_secrets TYPO; echo went on")
    assert code == 1
    assert "went on" not in said


def test_the_token_is_in_no_command_line(
    github: GitHubDouble, build: Build, process_list: ProcessList
) -> None:
    github.store(SOURCE, KEY=canary("key"))
    github.export_after = 3
    assert build.check("KEY")[0] == 0


def test_it_can_be_run_instead_of_sourced(github: GitHubDouble, build: Build) -> None:
    github.store(TARGET, KEY=canary("key"))
    ran = subprocess.run([SCRIPT, "KEY"], env=build.environment, capture_output=True, timeout=DEADLINE)
    assert (ran.returncode, ran.stderr) == (0, b"KEY: present (repository)\n")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    ran = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert ran.stdout + ran.stderr == ""
