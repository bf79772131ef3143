"""The invoke driver and builds: real tasks in a real checkout of a real repository."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.deploy.build import BuildRequest, run_build
from reconciler.deploy.build_user import BuildUser
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS, DeployRequest, driver_for
from reconciler.deploy.request import BuildFailed, DeployFailed, ManualService, TaskFailed, TaskTimeout
from reconciler.errors import SettingsError
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.settings import load_settings
from reconciler.spec.model import (
    Build,
    InvokeDeploy,
    ManualDeploy,
    Service,
)
from tests.canaries import canary
from tests.gitrepo import GitRepo, Link, git
from tests.reconciler.deploy.processes import wait_gone

TASKS = """
from invoke import Collection, task

@task
def show(c):
    c.run("env -0 > environment; pwd > where")

@task
def args(c, name, loud=False):
    print(f"{name} {loud}")

@task
def leak(c):
    c.run('echo "the password is $DB_PASSWORD"')

@task
def broken(c):
    c.run("echo something specific went wrong >&2; exit 9")

@task
def raises(c):
    raise ValueError("no such luck")

@task
def hang(c):
    c.run("echo $$; exec sleep 1000", pty=False)

@task
def build(c):
    c.run("mkdir dist && echo built from $TRUEUP_REVISION for ${TRUEUP_ENVIRONMENT:-nobody} > dist/index")

web = Collection("web", show)
namespace = Collection(show, args, leak, broken, raises, hang, build, web)
"""


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    remote = GitRepo.create(tmp_path / "remote.git")
    commit = remote.commit(
        {
            "tasks.py": TASKS,
            "web/deep/README": "here\n",
            "invoke/__init__.py": "raise SystemExit('not invoke')\n",
        }
    )
    remote.tag("v1.2.3", commit)
    return remote


@pytest.fixture
def checkout(repo: GitRepo, tmp_path: Path) -> Path:
    tree = tmp_path / "checkout"
    git("clone", "-q", "--branch", "v1.2.3", "-c", "advice.detachedHead=false", str(repo.path), str(tree))
    return tree


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    environ = {
        "PATH": os.environ["PATH"],
        "TRUEUP_STATE_DIR": str(tmp_path / "state"),
        "HTTPS_PROXY": "http://p:1",
    }
    return RunContext.of(load_settings(environ))


def request(
    checkout: Path,
    context: RunContext,
    task: str,
    *args: str,
    workdir: str = ".",
    timeout: float = 60.0,
    secrets: dict[str, str] | None = None,
    **options: object,
) -> DeployRequest:
    hidden = secrets or {}
    return DeployRequest(
        service=Service(
            name="web",
            environment="staging",
            repository="infra",
            unit="infra",
            deploy=InvokeDeploy(task=task, args=args, workdir=workdir, timeout=timeout),
        ),
        checkout=checkout,
        tag="v1.2.3",
        revision=git("rev-parse", "HEAD", cwd=checkout) if (checkout / ".git").exists() else "0" * 40,
        variables={"LOG_LEVEL": "debug", **hidden},
        masker=Masker([Secret(value) for value in hidden.values()]),
        context=context,
        **options,  # type: ignore[arg-type]
    )


async def failure(asked: DeployRequest) -> TaskFailed:
    with pytest.raises(TaskFailed) as raised:
        await DRIVERS["invoke"].deploy(asked)
    assert "\n" not in str(raised.value)
    return raised.value


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


# --- as another user ------------------------------------------------------------------------------


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that everybody can reach; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="trueup-test-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
async def test_a_task_runs_as_the_build_user(checkout: Path, open_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    tree = open_dir / "tree"
    shutil.copytree(checkout, tree, symlinks=True)
    (open_dir / "pointed-at").write_text("elsewhere\n")
    (tree / "web" / "outside").symlink_to(open_dir / "pointed-at")
    (open_dir / "linked").write_text("elsewhere\n")
    os.link(open_dir / "linked", tree / "linked")
    context = RunContext(
        {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        open_dir / "homes",
        # trueup's own Python may stand where only root can go.
        invoke_command=(
            "/bin/sh",
            "-c",
            'id -u; stat -c %u . web/deep "$HOME"; echo x > made; echo x > "$HOME/made"',
        ),
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    outcome = await DRIVERS["invoke"].deploy(request(tree, context, "show"))
    assert outcome.output.split() == [str(nobody.pw_uid)] * 4
    assert (tree / "made").stat().st_uid == nobody.pw_uid
    for outside in ("linked", "pointed-at"):
        assert (open_dir / outside).stat().st_uid == 0
    assert list(context.scratch.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
async def test_a_closed_state_directory_is_opened_for_the_build_user_alone(
    checkout: Path, open_dir: Path
) -> None:
    nobody = pwd.getpwnam("nobody")
    state = open_dir / "state"
    tree = state / "checkouts" / "tree"
    state.mkdir(mode=0o700)
    tree.parent.mkdir(mode=0o700)
    shutil.copytree(checkout, tree)
    context = RunContext(
        {"PATH": "/usr/bin:/bin"},
        state / "homes",
        invoke_command=("/bin/sh", "-c", f"cd {tree} && cat README.txt; ls {state}"),
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    (tree / "README.txt").write_text("reached\n")
    error = await failure(request(tree, context, "show"))
    assert error.output.startswith("reached\n")
    assert "Permission denied" in error.output, "passing through is not looking around"
    for directory in (state, tree.parent):
        status = directory.stat()
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o710, 0, nobody.pw_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
@pytest.mark.parametrize("where", ["above the state directory", "a group has rights there"])
async def test_a_work_tree_that_the_build_user_cannot_reach(
    checkout: Path, open_dir: Path, where: str
) -> None:
    nobody = pwd.getpwnam("nobody")
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    state = closed
    if where == "above the state directory":
        state = closed / "state"
        state.mkdir(mode=0o700)
    else:
        closed.chmod(0o750)
    tree = state / "tree"
    shutil.copytree(checkout, tree)
    context = RunContext(
        {"PATH": "/usr/bin:/bin"},
        state / "homes",
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    before = closed.stat().st_mode
    with pytest.raises(SettingsError, match=f"nobody cannot enter {closed}, .*chmod o\\+x {closed}`"):
        await DRIVERS["invoke"].deploy(request(tree, context, "show"))
    assert closed.stat().st_mode == before
