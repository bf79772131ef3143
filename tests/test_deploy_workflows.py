"""The workflows in `examples/github/`: their steps, run by bash as a runner does, against a real primary."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.canaries import canary
from tests.deploying import Deploying, deploying
from tests.gitrepo import git
from tests.processlist import ProcessList

EXAMPLES = Path(__file__).parent.parent / "examples/github"
SCRIPT = EXAMPLES / "trueup-deploy.sh"
NEEDED = ("bash", "curl", "jq", "python3", "shellcheck")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}")

GH = """#!/bin/sh
echo "$@" >> "$GH_LOG"
test "$2" = create
"""


def workflow(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


@dataclass
class Run:
    """One run of a workflow in a checkout of the application's repository."""

    it: Deploying
    root: Path
    steps: list[Any]
    values: dict[str, str] = field(default_factory=dict)
    log: str = ""

    async def all(self) -> int:
        """Runs every step that is a script; the exit code of the one that failed, or 0."""
        for step in self.steps:
            if "run" in step and (code := await self.step(step)):
                return code
        return 0

    async def step(self, step: Mapping[str, Any]) -> int:
        output = self.root / "output"
        output.write_text("")
        given = {name: self.value(text) for name, text in step.get("env", {}).items()}
        ran = await trio.run_process(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={
                **given,
                "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.root),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GITHUB_ACTOR": "octocat",
                "GITHUB_RUN_ID": "77",
                "GITHUB_RUN_ATTEMPT": "1",
                "GITHUB_OUTPUT": str(output),
                "GH_LOG": str(self.root / "gh.log"),
                "PATIENCE": "100",
                "POLL": "0.05",
            },
            cwd=self.root / "checkout",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.log += ran.stdout.decode()
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.values[f"steps.{step.get('id')}.outputs.{name}"] = value
        return ran.returncode

    def value(self, text: str) -> str:
        """What GitHub puts in place of an expression."""
        return self.values.get(text.strip("${ }"), "")


def prepare(it: Deploying, root: Path, name: str, job: str = "deploy", **inputs: str) -> Run:
    root.mkdir()
    git("clone", "-q", it.world.app.url, str(root / "checkout"))
    scripts = root / "checkout" / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    gh = root / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(0o755)
    values = {f"inputs.{name}": value for name, value in inputs.items()}
    values |= {"vars.TRUEUP_URL": it.primary.http, "secrets.TRUEUP_DEPLOY_SECRET": it.secret}
    return Run(it, root, workflow(name)["jobs"][job]["steps"], {**values, "github.token": "of-the-run"})


async def test_from_a_push_to_production(tmp_path: Path, process_list: ProcessList) -> None:
    async with deploying(tmp_path / "world", canary("workflows")) as it:
        # staging.yml after a push: the next tag, and it runs.
        await trio.to_thread.run_sync(lambda: it.world.app.commit({"web/compose.yaml": "two\n"}))
        run = await trio.to_thread.run_sync(prepare, it, tmp_path / "one", "staging.yml")
        assert await run.all() == 0, run.log
        assert run.values["steps.tag.outputs.tag"] == "v1.0.1"
        assert "succeeded: v1.0.1 runs" in run.log
        assert it.deployed("staging") == ["v1.0.0", "v1.0.1"]
        tag = it.world.app.git("cat-file", "tag", "v1.0.1")
        assert tag.endswith("Environment: staging\nTriggered-By: octocat")
        # production.yml by hand: the confirmation first.
        inputs = {"staging_tag": "v1.0.1", "confirm": "Deploy", "service": ""}
        make = lambda place: prepare(it, tmp_path / place, "production.yml", **inputs)  # noqa: E731
        run = await trio.to_thread.run_sync(make, "two")
        assert await run.all() == 1
        assert run.log == "::error::type deploy to confirm\n"
        inputs |= {"confirm": "deploy"}
        run = await trio.to_thread.run_sync(make, "three")
        assert await run.all() == 0, run.log
        assert it.deployed("production") == ["v1.1.0"]
        assert (run.root / "gh.log").read_text().splitlines() == [
            "release view v1.1.0",
            "release create v1.1.0 --verify-tag --generate-notes",
        ]
        # What people type is text, whatever they type.
        inputs |= {"staging_tag": "v9.9.9; touch $HOME/pwned `touch $HOME/pwned`"}
        run = await trio.to_thread.run_sync(make, "four")
        assert await run.all() == 1
        assert "(http 404)" in run.log
        assert not (run.root / "pwned").exists()
        assert it.secret not in run.log


async def test_the_number_that_somebody_took_is_not_taken_again(tmp_path: Path) -> None:
    """Between the look and the push somebody makes the same tag: a hook of git's does it here."""
    async with deploying(tmp_path / "world", canary("workflows-2")) as it:
        run = await trio.to_thread.run_sync(prepare, it, tmp_path / "one", "staging.yml")
        [step] = [each for each in run.steps if each.get("id") == "tag"]
        await trio.to_thread.run_sync(it.world.app.tag, "v1.3.1")
        hook = run.root / "checkout/.git/hooks/pre-push"
        hook.write_text(
            f"#!/bin/sh\ntest -e {run.root}/done && exit\ntouch {run.root}/done\n"
            f"git --git-dir={it.world.app.path} tag v1.3.2 main\n"
        )
        hook.chmod(0o755)
        before = it.world.app.resolve("main")
        assert await run.step(step) == 0, run.log
        assert run.values["steps.tag.outputs.tag"] == "v1.3.3"
        assert it.world.app.resolve("v1.3.2^{commit}") == before


async def test_a_failure_and_a_rollback(tmp_path: Path) -> None:
    async with deploying(tmp_path / "world", canary("workflows-3")) as it:
        run = await trio.to_thread.run_sync(prepare, it, tmp_path / "one", "staging.yml")
        environment = {
            "TRUEUP_URL": it.primary.http,
            "DEPLOY_SECRET": it.secret,
        }

        async def script(arguments: str) -> int:
            run.values |= environment
            names = {name: name for name in environment}
            return await run.step(
                {"run": f"scripts/trueup-deploy.sh {arguments}", "env": names, "id": "script"}
            )

        assert await script("production v1.0.0") == 0, run.log
        assert run.values["steps.script.outputs.release"] == "v1.1.0"
        await trio.to_thread.run_sync(lambda: it.release("v1.0.1", broken=True))
        assert await script("staging v1.0.1") == 1
        assert "::error::v1.0.1 in staging: failed: v1.0.1 failed" in run.log
        assert await script("production v1.0.1") == 1
        assert "cannot be promoted to production: it failed in staging" in run.log
        await trio.to_thread.run_sync(lambda: it.release("v1.0.2"))
        assert await script("staging v1.0.2 web") == 0, run.log
        assert await script("production v1.0.2") == 0, run.log
        assert await script("--rollback production v1.1.0") == 0, run.log
        assert it.deployed("production") == ["v1.1.0", "v1.2.0", "v1.1.0"]


async def test_reconcile_on_a_schedule(tmp_path: Path) -> None:
    """The step that reconciles, with a `trueup` on the path as pip would have put it there."""
    async with deploying(tmp_path / "world", canary("workflows-4")) as it:
        await it.primary.end()
        steps = workflow("reconcile.yml")["jobs"]["reconcile"]["steps"]
        [step] = [each for each in steps if each["name"] == "Reconcile"]
        trueup = tmp_path / "bin" / "trueup"
        trueup.parent.mkdir()
        trueup.write_text(
            f'#!/bin/sh\ncp "$TRUEUP_GIT_ASKPASS" {tmp_path}/askpass\n'
            f"$TRUEUP_GIT_ASKPASS Password: | wc -c > {tmp_path}/count\n"
            f'exec {sys.executable} -m reconciler "$@"\n'
        )
        trueup.chmod(0o755)
        key = (it.world.state / "master.key").read_text()
        token = canary("git-token")
        ran = await trio.run_process(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={
                **it.world.environment,
                "PATH": f"{trueup.parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "TRUEUP_MASTER_KEY": key.strip(),
                "GIT_TOKEN": token,
                "TRUEUP_STATE_DIR": "",
                "PYTHONPATH": str(EXAMPLES.parent.parent),
            },
            cwd=tmp_path,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout.decode()
        # It began with an empty state, and found everything as it was recorded.
        assert it.deployed("staging") == ["v1.0.0"]
        assert int((tmp_path / "count").read_text()) == len(token)
        assert token not in (tmp_path / "askpass").read_text()


@pytest.mark.parametrize("name", ["staging.yml", "production.yml", "reconcile.yml", "docs-site.yml"])
def test_a_workflow_is_well_formed(name: str) -> None:
    """Rights are given by name, jobs end, and nothing of an event is written into a script."""
    parsed = workflow(name)
    assert "permissions" in parsed
    for job in parsed["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert "name" in step
            assert ("run" in step) != ("uses" in step)
            assert "${{" not in step.get("run", "")
            assert "@" in step.get("uses", "@")
            if "run" in step:
                shellcheck(step["run"])


def test_the_script_is_well_formed() -> None:
    shellcheck(SCRIPT.read_text())
    assert os.access(SCRIPT, os.X_OK)


def shellcheck(script: str) -> None:
    command = ["shellcheck", "-s", "bash", "-"]
    ran = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_the_documentation_is_published_from_main_alone() -> None:
    parsed = workflow("docs-site.yml")
    on = parsed[True]  # YAML 1.1 reads the key `on` as a truth value
    assert on["push"]["branches"] == ["main"]
    assert {"docs/**", "**.md"} <= set(on["pull_request"]["paths"]) & set(on["push"]["paths"])
    assert "workflow_dispatch" in on
    build, publish = parsed["jobs"]["build"], parsed["jobs"]["publish"]
    keeps = next(each for each in build["steps"] if each.get("uses", "").startswith("actions/upload-pages"))
    assert "refs/heads/main" in publish["if"] and publish["if"] == keeps["if"]
    assert parsed["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
