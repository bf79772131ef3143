"""`examples/github/export-secret.yml`: its steps, run by bash as a runner does; `gh` asks the double."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.canaries import MARKER, canary, redact
from tests.contracts.github_double import GitHubDouble
from tests.processlist import ProcessList

WORKFLOW = Path(__file__).parent.parent / "examples/github/export-secret.yml"
TARGET = "acme/billing"
VARIABLES = ("TARGETS", "SECRETS", "ENVIRONMENTS")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("bash", "jq"))), reason="needs bash and jq")

# What `gh secret set` does, as far as the workflow needs it: the value from standard input, sealed, written.
GH = f"""#!{sys.executable}
import os, sys, trio
from reconciler.github.client import GitHub
from reconciler.github.scopes import EnvironmentScope, RepositoryScope
from reconciler.secrets.values import Secret

options = dict(each.split("=", 1) for each in sys.argv[3:-2])
assert sys.argv[1:3] == ["secret", "set"] and sys.argv[-2] == "--", sys.argv
print("gh sets", sys.argv[-1], flush=True)
assert not {{"ALL_SECRETS", "EXPORT_TOKEN"}} & set(os.environ)
repo, environment = options.pop("--repo"), options.pop("--env", None)
assert not options
scope = RepositoryScope(repo) if environment is None else EnvironmentScope(repo, environment)

async def main():
    async with GitHub(os.environ["DOUBLE"], Secret(os.environ["GH_TOKEN"])) as github:
        value = Secret(sys.stdin.read().rstrip("\\r\\n"))
        await github.put_secret(scope, sys.argv[-1], value, await github.public_key(scope))

try:
    trio.run(main)
except Exception as error:
    sys.exit(type(error).__name__)
"""


@pytest.fixture
def github() -> Iterator[GitHubDouble]:
    with GitHubDouble() as double:
        double.add(TARGET, f"{TARGET}#prod")
        yield double


def steps() -> dict[str, Any]:
    [job] = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    return {step["name"]: step for step in job["steps"]}


class Runner:
    """Runs the workflow for one dispatch, in a source repository with these secrets and variables."""

    def __init__(self, directory: Path, github: GitHubDouble) -> None:
        self.directory = directory
        self.github = github
        self.secrets: dict[str, str] = {"EXPORT_TOKEN": github.token, "github_token": canary("own-token")}
        self.variables: dict[str, str] = {}
        gh = directory / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH)
        gh.chmod(0o755)

    def dispatch(self, **payload: Any) -> tuple[int, str]:
        """Exit code of the step that ended the run, and the log as the runner gets it."""
        output = self.directory / "output"
        output.write_text("")
        values = {
            "toJSON(github.event.client_payload)": json.dumps(payload, indent=2),
            "github.repository_owner": "Acme",
            "toJSON(secrets)": json.dumps(self.secrets, indent=2),
            "secrets.EXPORT_TOKEN": self.secrets.get("EXPORT_TOKEN", ""),
            **{f"vars.EXPORT_{name}": self.variables.get(name, "") for name in VARIABLES},
        }
        log = ""
        for step in steps().values():
            environment = {name: values[text.strip("${ }")] for name, text in step["env"].items()}
            ran = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                env=environment
                | {
                    "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                    "HOME": str(self.directory),
                    "GITHUB_OUTPUT": str(output),
                    "GITHUB_ACTOR": "octocat",
                    "DOUBLE": self.github.url,
                },
                cwd=self.directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            log += ran.stdout
            if ran.returncode:
                return ran.returncode, log
            values["steps.request.outputs.request"] = output.read_text().strip().partition("=")[2]
        return 0, log


def shown(log: str) -> str:
    """The log as people see it: with what was masked up to then hidden, and without the masks themselves."""
    masks: list[str] = []
    lines = []
    for line in log.splitlines():
        if line.startswith("::add-mask::"):
            masks.append(line.removeprefix("::add-mask::").replace("%0D", "\r").replace("%25", "%"))
            continue
        for mask in masks:
            line = line.replace(mask, "***")
        lines.append(line)
    return "\n".join(lines)


@pytest.fixture
def runner(tmp_path: Path, github: GitHubDouble) -> Runner:
    return Runner(tmp_path, github)


def test_one_secret_in_the_documented_form(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets["POSTGRES_PASSWORD"] = canary("postgres")
    code, log = runner.dispatch(secret_name="POSTGRES_PASSWORD", target_repo=TARGET)
    assert code == 0
    assert github.opened(TARGET) == {"POSTGRES_PASSWORD": canary("postgres")}
    assert MARKER not in shown(log)
    assert "exported POSTGRES_PASSWORD to acme/billing, as POSTGRES_PASSWORD, for octocat" in log


def test_a_batch_with_renames_into_an_environment(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets |= {"DB_USER": canary("user"), "REDIS_URL": canary("redis"), "OTHER": canary("other")}
    code, _ = runner.dispatch(
        secret_names=["db_user", "REDIS_URL", "DB_USER"],
        target_repo=TARGET,
        target_environment="prod",
        target_names={"redis_url": "CACHE_URL"},
    )
    assert code == 0
    assert github.opened(f"{TARGET}#prod") == {"DB_USER": canary("user"), "CACHE_URL": canary("redis")}
    assert github.opened(TARGET) == {}


def test_every_line_is_masked_before_anything_is_written(runner: Runner, github: GitHubDouble) -> None:
    odd = f"  {canary('line-2')} 100%0A{canary('tail')}"
    key = f"-----BEGIN KEY-----\r\n{canary('line-1')}\n\n{odd}\n-----END KEY-----"
    runner.secrets |= {"KEY": key, "LAST": canary("last")}
    code, log = runner.dispatch(secret_names=["KEY", "LAST"], target_repo=TARGET)
    assert code == 0
    lines = log.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("gh sets"))
    assert [redact(line) for line in lines[:first] if not line.startswith("::add-mask::")] == []
    masked = [line.removeprefix("::add-mask::") for line in lines[:first]]
    assert masked == [
        "-----BEGIN KEY-----",
        canary("line-1"),
        odd.replace("%", "%25"),
        "-----END KEY-----",
        canary("last"),
    ]
    written = github.opened(TARGET)["KEY"]
    assert written == key


def test_a_name_that_the_source_has_not(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets |= {"REAL": canary("real"), "EMPTY": ""}
    code, log = runner.dispatch(secret_names=["TYPO", "EMPTY", "REAL"], target_repo=TARGET)
    assert code == 1
    assert "::error::this repository has no secret TYPO" in log
    assert "::error::this repository has no secret EMPTY" in log
    assert github.opened(TARGET) == {"REAL": canary("real")}


def test_a_target_that_the_token_may_not_write(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets["KEY"] = canary("key")
    code, log = runner.dispatch(secret_name="KEY", target_repo="acme/nowhere")
    assert code == 1
    assert "::error::KEY could not be written to acme/nowhere" in log


def test_without_the_token(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets["KEY"] = canary("key")
    del runner.secrets["EXPORT_TOKEN"]
    code, log = runner.dispatch(secret_name="KEY", target_repo=TARGET)
    assert code == 1
    assert "::error::the secret EXPORT_TOKEN is missing here" in log


HOSTILE = "$(touch owned)`touch owned`'; touch owned; '"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({}, "a name has other characters"),
        ({"secret_name": HOSTILE}, "a name has other characters"),
        ({"secret_name": "A\nB"}, "a name has other characters"),
        ({"secret_name": "1A"}, "a name has other characters"),
        ({"secret_name": "GitHub_Token"}, "begins with GITHUB_"),
        ({"secret_name": ["A"]}, "a name has other characters"),
        ({"secret_names": "A"}, "no array of 1 to 100 names"),
        ({"secret_names": []}, "no array of 1 to 100 names"),
        ({"secret_names": [f"A{number}" for number in range(101)]}, "no array of 1 to 100 names"),
        ({"secret_name": "export_token"}, "EXPORT_TOKEN never leaves"),
        ({"secret_name": "A", "target_names": {"A": "GITHUB_A"}}, "target_names does not map"),
        ({"secret_name": "A", "target_names": ["A"]}, "target_names does not map"),
        ({"secret_names": ["A", "B"], "target_names": {"A": "b"}}, "two secrets would get the same name"),
        ({"secret_name": "A", "target_repo": HOSTILE}, "target_repo is no OWNER/REPO"),
        ({"secret_name": "A", "target_repo": "acme/.."}, "target_repo is no OWNER/REPO"),
        ({"secret_name": "A", "target_repo": "acme/x\n"}, "target_repo is no OWNER/REPO"),
        ({"secret_name": "A", "target_repo": "-acme/x"}, "target_repo is no OWNER/REPO"),
        ({"secret_name": "A", "target_repo": None}, "target_repo is no OWNER/REPO"),
        ({"secret_name": "A", "target_repo": "evil/billing"}, "not among those that may get secrets"),
        ({"secret_name": "A", "target_environment": "--body=x"}, "no name of an environment"),
        ({"secret_name": "A", "source_environment": "docs"}, "not one that EXPORT_ENVIRONMENTS lists"),
    ],
)
def test_requests_that_are_refused(
    runner: Runner, github: GitHubDouble, payload: dict[str, Any], why: str
) -> None:
    runner.secrets["A"] = canary("a")
    code, log = runner.dispatch(**({"target_repo": TARGET} | payload))
    assert code == 1
    assert log.startswith("::error::refused: ")
    assert why in log
    assert log.count("\n") == 1
    assert github.requests == []
    assert not (runner.directory / "owned").exists()


def test_what_the_variables_allow(runner: Runner, github: GitHubDouble) -> None:
    runner.secrets |= {"A": canary("a"), "B": canary("b")}
    github.add("partner/shop", "partner/other")
    runner.variables = {"TARGETS": "acme, partner/shop", "SECRETS": "A", "ENVIRONMENTS": "docs"}
    assert runner.dispatch(secret_name="A", target_repo="Partner/shop")[0] == 1
    assert runner.dispatch(secret_name="A", target_repo="partner/shop", source_environment="docs")[0] == 0
    assert runner.dispatch(secret_name="A", target_repo="partner/other")[0] == 1
    assert runner.dispatch(secret_name="B", target_repo=TARGET)[0] == 1
    runner.variables["ENVIRONMENTS"] = "other docs-2"
    for name in ("docs", "other docs-2"):
        assert runner.dispatch(secret_name="A", target_repo="acme/billing", source_environment=name)[0] == 1
    assert github.opened("partner/shop") == {"A": canary("a")}
    assert github.opened("partner/other") == github.opened(TARGET) == {}


def test_a_value_is_in_no_command_line(
    runner: Runner, github: GitHubDouble, process_list: ProcessList
) -> None:
    runner.secrets["KEY"] = canary("key")
    assert runner.dispatch(secret_name="KEY", target_repo=TARGET)[0] == 0


def test_nothing_of_a_dispatch_is_written_into_a_script() -> None:
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"repository_dispatch": {"types": ["export-secret"]}}  # YAML 1.1 reads `on` so
    assert workflow["permissions"] == {}
    assert workflow["concurrency"].get("cancel-in-progress") is None
    for step in steps().values():
        assert "${{" not in step["run"]
        assert "uses" not in step


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing_in_its_steps() -> None:
    for step in steps().values():
        script = "#!/bin/bash\n" + step["run"]
        # SC2016: jq's variables stand in single quotes on purpose.
        ran = subprocess.run(
            ["shellcheck", "--exclude=SC2016", "-"], input=script, capture_output=True, text=True
        )
        assert ran.stdout + ran.stderr == ""
