"""A repository with tasks of invoke, and what is asked of the driver that runs them."""

from pathlib import Path

import pytest

from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS, DeployRequest
from reconciler.deploy.request import TaskFailed
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.spec.model import InvokeDeploy, Service
from tests.gitrepo import git

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
    """The service `web`, deployed by that task of the checkout; `secrets` are variables that are masked."""
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
    """How the deploy fails: in one line."""
    with pytest.raises(TaskFailed) as raised:
        await DRIVERS["invoke"].deploy(asked)
    assert "\n" not in str(raised.value)
    return raised.value
