"""The invoke driver and builds: real tasks in a real checkout of a real repository."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.deploy.build import BuildRequest, run_build
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS, driver_for
from reconciler.deploy.request import BuildFailed, DeployFailed, ManualService, TaskTimeout
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Build, ManualDeploy
from tests.canaries import canary
from tests.gitrepo import GitRepo, Link, git
from tests.reconciler.deploy.invoking import failure, request
from tests.reconciler.deploy.processes import wait_gone


async def test_a_task_gets_exactly_what_is_declared(
    checkout: Path, context: RunContext, tmp_path: Path
) -> None:
    asked = request(checkout, context, "web.show")
    outcome = await driver_for(asked.service.deploy).deploy(asked)
    assert outcome.exit_code == 0
    pairs = dict(line.split("=", 1) for line in (checkout / "environment").read_text().split("\0") if line)
    home = pairs.pop("HOME")
    assert pairs.pop("TRUEUP_RUN") == Path(home).name
    # What bash, which invoke runs commands with, adds by itself.
    for name in ("_", "SHLVL", "PWD", "OLDPWD"):
        pairs.pop(name, None)
    assert pairs == {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HTTPS_PROXY": "http://p:1",
        "LOG_LEVEL": "debug",
        "TRUEUP_ENVIRONMENT": "staging",
        "TRUEUP_SERVICE": "web",
        "TRUEUP_TAG": "v1.2.3",
        "TRUEUP_REVISION": asked.revision,
    }
    assert Path(home).parent == tmp_path / "state" / "homes"
    assert list(context.scratch.iterdir()) == [], "the home is gone afterwards"


async def test_declared_variables_cannot_change_who_a_task_is(checkout: Path, context: RunContext) -> None:
    asked = request(
        checkout, context, "show", secrets={"TRUEUP_ENVIRONMENT": "production", "HOME": "/nowhere"}
    )
    await DRIVERS["invoke"].deploy(asked)
    written = (checkout / "environment").read_text().split("\0")
    assert "TRUEUP_ENVIRONMENT=staging" in written
    assert "HOME=/nowhere" in written


async def test_arguments_and_workdir(checkout: Path, context: RunContext) -> None:
    lines: list[str] = []
    asked = request(
        checkout, context, "args", "--name", "two words", "--loud", workdir="web/deep", log=lines.append
    )
    outcome = await DRIVERS["invoke"].deploy(asked)
    assert outcome.output == "two words True\n"
    assert lines == ["two words True"]
    await DRIVERS["invoke"].deploy(request(checkout, context, "show", workdir="web/deep"))
    assert (checkout / "web" / "deep" / "where").read_text() == f"{checkout}/web/deep\n"


async def test_secrets_are_masked_in_output_and_live_lines(checkout: Path, context: RunContext) -> None:
    lines: list[str] = []
    secret = canary("invoke-leak")
    asked = request(checkout, context, "leak", secrets={"DB_PASSWORD": secret}, log=lines.append)
    outcome = await DRIVERS["invoke"].deploy(asked)
    assert outcome.output == "the password is ***\n"
    assert lines == ["the password is ***"]
    assert secret not in repr(asked)


async def test_a_failing_task(checkout: Path, context: RunContext) -> None:
    error = await failure(request(checkout, context, "broken"))
    assert isinstance(error, DeployFailed)
    assert error.reason == "DeployFailed"
    assert "services/staging/web: `invoke broken` ended with exit code 9 at v1.2.3" in str(error)
    assert "something specific went wrong" in str(error)
    assert "something specific went wrong" in error.output


async def test_a_task_that_raises(checkout: Path, context: RunContext) -> None:
    error = await failure(request(checkout, context, "raises"))
    assert "ended with exit code 1" in str(error)
    assert str(error).endswith("ValueError: no such luck")


@pytest.mark.parametrize(
    ("task", "workdir", "words"),
    [
        ("nothing", ".", "the repository has no task 'nothing' at v1.2.3"),
        ("--list", ".", "'--list' is no name of a task"),
        ("show", "nowhere", "workdir 'nowhere' is not a directory in the repository at v1.2.3"),
        ("show", "tasks.py", "workdir 'tasks.py' is not a directory"),
        ("show", "../elsewhere", "workdir '../elsewhere' leads out of the repository"),
        ("show", "/tmp", "workdir '/tmp' leads out of the repository"),
    ],
)
async def test_what_is_not_there(
    checkout: Path, context: RunContext, task: str, workdir: str, words: str
) -> None:
    error = await failure(request(checkout, context, task, workdir=workdir))
    assert f"services/staging/web: {words}" in str(error)


async def test_a_symlink_out_of_the_repository_is_no_workdir(
    repo: GitRepo, context: RunContext, tmp_path: Path
) -> None:
    repo.commit({"out": Link("../..")})
    git("clone", "-q", str(repo.path), str(tmp_path / "tree"))
    error = await failure(request(tmp_path / "tree", context, "show", workdir="out"))
    assert "leads out of the repository" in str(error)


async def test_tasks_above_the_checkout_are_never_run(context: RunContext, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit('a task of somebody else was loaded')\n")
    remote = GitRepo.create(tmp_path / "empty.git")
    remote.commit({"README": "no tasks\n"})
    git("clone", "-q", str(remote.path), str(tmp_path / "tree"))
    error = await failure(request(tmp_path / "tree", context, "web.sync"))
    assert (
        "no tasks.py in '.' or above it in the repository at v1.2.3; add one that has the task 'web.sync'"
        in str(error)
    )


async def test_the_command_that_runs_invoke_can_be_chosen(checkout: Path, context: RunContext) -> None:
    chosen = RunContext(
        context.base_environment, context.scratch, invoke_command=("/bin/echo", "called with")
    )
    outcome = await DRIVERS["invoke"].deploy(request(checkout, chosen, "show"))
    assert outcome.output == f"called with --search-root {checkout} show\n"
    missing = RunContext(context.base_environment, context.scratch, invoke_command=("/no/invoke",))
    assert "services/staging/web: cannot start /no/invoke" in str(
        await failure(request(checkout, missing, "show"))
    )


async def test_a_task_that_takes_too_long(
    checkout: Path, context: RunContext, mock_clock: trio.testing.MockClock
) -> None:
    pids: list[int] = []

    def started(line: str) -> None:
        pids.append(int(line))
        mock_clock.jump(90)

    error = await failure(request(checkout, context, "hang", timeout=90, log=started))
    assert isinstance(error, TaskTimeout)
    assert error.reason == "Timeout"
    assert "`invoke hang` was ended after its timeout of 90s" in str(error)
    assert await wait_gone(pids[0])


async def test_a_cancelled_deploy_leaves_nothing(checkout: Path, context: RunContext) -> None:
    pids: list[int] = []
    with trio.CancelScope() as scope:

        def started(line: str) -> None:
            pids.append(int(line))
            scope.cancel()

        await DRIVERS["invoke"].deploy(request(checkout, context, "hang", log=started))
    assert scope.cancelled_caught
    assert await wait_gone(pids[0])
    assert list(context.scratch.iterdir()) == []


async def test_a_build_writes_into_its_checkout(checkout: Path, context: RunContext) -> None:
    revision = git("rev-parse", "HEAD", cwd=checkout)
    asked = BuildRequest(
        owner="projects/branch/site",
        project="site",
        build=Build(task="build"),
        checkout=checkout,
        revision=revision,
        masker=Masker([]),
        context=context,
    )
    await run_build(asked)
    assert (checkout / "dist" / "index").read_text() == f"built from {revision} for nobody\n"
    with pytest.raises(
        BuildFailed, match="projects/branch/site: `invoke build` ended with exit code"
    ) as raised:
        await run_build(asked)
    assert raised.value.reason == "BuildFailed"


def test_what_is_deployed_by_hand_has_no_driver() -> None:
    with pytest.raises(ManualService, match="deployed by hand") as raised:
        driver_for(ManualDeploy())
    assert raised.value.reason == "Manual"
