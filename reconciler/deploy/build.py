"""A project's build: a task of its repository that makes the tree to be synced."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.deploy.context import Identity, RunContext
from reconciler.deploy.invoke import TaskRun, run_task
from reconciler.deploy.output import Masker
from reconciler.deploy.process import Completed
from reconciler.deploy.request import BuildFailed, no_log
from reconciler.secrets.values import Secret
from reconciler.spec.model import Build


@dataclass(frozen=True, slots=True)
class BuildRequest:
    owner: str
    """Whom messages name: the project's id in status, such as `projects/production/site`."""
    project: str
    build: Build
    checkout: Path
    """A work tree for this build alone; the build writes into it."""
    revision: str
    """Commit id."""
    masker: Masker
    context: RunContext
    environment: str | None = None
    """None: the project follows a branch."""
    tag: str | None = None
    variables: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)
    log: Callable[[str], None] = no_log


async def run_build(request: BuildRequest) -> Completed:
    """Run the build in its checkout. Raises BuildFailed, TaskTimeout or SettingsError."""
    return await run_task(
        TaskRun(
            owner=request.owner,
            task=request.build.task,
            args=(),
            checkout=request.checkout,
            workdir=".",
            timeout=request.build.timeout,
            variables=request.variables,
            identity=Identity(
                environment=request.environment,
                project=request.project,
                tag=request.tag,
                revision=request.revision,
            ),
            masker=request.masker,
            context=request.context,
            log=request.log,
        ),
        BuildFailed,
    )
