"""Runs tasks of a repository's `tasks.py` with invoke: the `invoke` driver, and what builds use."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from reconciler.deploy.build_user import hand_over
from reconciler.deploy.context import Identity, RunContext, private_home, task_environment
from reconciler.deploy.inside import directory_inside
from reconciler.deploy.output import Masker, last_lines
from reconciler.deploy.process import Completed, StartFailed, run_captured
from reconciler.deploy.request import (
    DeployFailed,
    DeployOutcome,
    DeployRequest,
    Driver,
    TaskFailed,
    TaskTimeout,
)
from reconciler.secrets.values import Secret
from reconciler.spec.model import InvokeDeploy

_TASK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task to run. `owner` is whom messages name, such as `services/staging/web`."""

    owner: str
    task: str
    args: tuple[str, ...]
    checkout: Path
    workdir: str
    """Inside the checkout."""
    timeout: float
    """Seconds."""
    variables: Mapping[str, str | Secret] = field(repr=False)
    identity: Identity
    masker: Masker
    context: RunContext
    log: Callable[[str], None]


class InvokeDriver(Driver):
    """`deploy: {kind: invoke, task: web.sync}`: exit code 0 means that the service is as desired."""

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        service, deploy = request.service, request.service.deploy
        if not isinstance(deploy, InvokeDeploy):
            raise TypeError(f"not an invoke deploy: {type(deploy).__name__}")
        completed = await run_task(
            TaskRun(
                owner=service.id,
                task=deploy.task,
                args=deploy.args,
                checkout=request.checkout,
                workdir=deploy.workdir,
                timeout=deploy.timeout,
                variables=request.variables,
                identity=Identity(
                    environment=service.environment,
                    service=service.name,
                    tag=request.tag,
                    revision=request.revision,
                ),
                masker=request.masker,
                context=request.context,
                log=request.log,
            ),
            DeployFailed,
        )
        return DeployOutcome(completed.exit_code, completed.output, completed.duration)


async def run_task(run: TaskRun, failed: type[TaskFailed]) -> Completed:
    """Run the task and return how it ended, which is with exit code 0.

    Raises `failed` where the task does not exist, cannot start or ends otherwise; TaskTimeout where
    it takes too long; SettingsError where the build user cannot reach the work tree.
    """
    if not _TASK.fullmatch(run.task):
        raise failed(
            f"{run.owner}: {run.task!r} is no name of a task", hint="write it as `invoke --list` does"
        )
    workdir, root = await trio.to_thread.run_sync(_find_tasks, run, failed)
    context = run.context
    if context.build_user is not None:
        hand = partial(hand_over, run.checkout, context.build_user, state_dir=context.state_dir)
        await trio.to_thread.run_sync(hand)
    async with private_home(context) as home:
        try:
            outcome: Completed | StartFailed = await run_captured(
                [*context.invoke_command, "--search-root", str(root), run.task, *run.args],
                cwd=workdir,
                env=task_environment(context.base_environment, run.variables, run.identity, home),
                timeout=run.timeout,
                masker=run.masker,
                user=context.build_user,
                on_line=run.log,
            )
        except StartFailed as error:
            outcome = error
    if isinstance(outcome, StartFailed):
        raise failed(f"{run.owner}: {outcome.message}", hint=outcome.hint)
    _judge(run, outcome, failed)
    return outcome


def _find_tasks(run: TaskRun, failed: type[TaskFailed]) -> tuple[Path, Path]:
    """The directory to run in, and the nearest one from there up that has tasks, within the checkout.

    invoke itself would go on searching above the checkout and could run somebody else's `tasks.py`.
    """
    checkout = run.checkout.resolve()
    workdir = directory_inside(checkout, run.workdir, f"{run.owner}: workdir", _at(run), failed)
    for directory in (workdir, *workdir.parents):
        if (directory / "tasks.py").is_file() or (directory / "tasks" / "__init__.py").is_file():
            return workdir, directory
        if directory == checkout:
            break
    raise failed(
        f"{run.owner}: no tasks.py in {run.workdir!r} or above it in the repository{_at(run)}",
        hint=f"add one that has the task {run.task!r}, or set `workdir`",
    )


def _judge(run: TaskRun, completed: Completed, failed: type[TaskFailed]) -> None:
    if completed.timed_out:
        raise TaskTimeout(
            f"{run.owner}: `invoke {run.task}` was ended after its timeout of {run.timeout:g}s",
            hint=_ending(run, completed.output) or "it printed nothing",
            output=completed.output,
        )
    if completed.exit_code == 0:
        return
    # invoke's words for a task that the collection does not have.
    if f"No idea what '{run.task}' is!" in completed.output:
        raise failed(
            f"{run.owner}: the repository has no task {run.task!r}{_at(run)}",
            hint="`invoke --list` there shows those it has",
            output=completed.output,
        )
    how = (
        f"was ended by signal {-completed.exit_code}"
        if completed.exit_code < 0
        else f"ended with exit code {completed.exit_code}"
    )
    raise failed(
        f"{run.owner}: `invoke {run.task}` {how}{_at(run)}",
        hint=_ending(run, completed.output) or "it printed nothing",
        output=completed.output,
    )


def _ending(run: TaskRun, output: str) -> str:
    # The work tree has another name each time, and the same failure should read the same.
    text = last_lines(output).replace(f"{run.checkout}/", "")
    return f"last lines: {text}" if text else ""


def _at(run: TaskRun) -> str:
    return f" at {run.identity.tag}" if run.identity.tag is not None else ""
