"""`trueup promote`, `hold` and their like as tasks of invoke; `tasks.py` takes them over."""

import shlex
import sys
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

__all__ = [
    "approve",
    "freeze",
    "history",
    "hold",
    "hotfix",
    "override",
    "promote",
    "release",
    "resume",
    "rollback",
    "suspend",
    "trueup",
    "unfreeze",
    "unhold",
]


def trueup(context: Context, *arguments: str) -> None:
    """Run the command of the environment that invoke runs in; its exit code becomes invoke's."""
    command = Path(sys.executable).with_name("trueup")
    result = context.run(shlex.join([str(command), *arguments]), warn=True)
    if result is not None and result.exited:
        raise Exit(code=result.exited)


def _options(**given: str) -> list[str]:
    """Those that were given, as `--name=value`."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value]


@task
def promote(
    context: Context,
    source: str,
    target: str,
    unit: str = "",
    tag: str = "",
    confirm: str = "",
    drop_hotfix: bool = False,
    reason: str = "",
) -> None:
    """Have TARGET take what SOURCE runs, with the next number of its own."""
    options = _options(unit=unit, tag=tag, confirm=confirm, reason=reason)
    trueup(context, "promote", source, target, *options, *(["--drop-hotfix"] if drop_hotfix else []))


@task
def release(
    context: Context, environment: str, unit: str = "", bump: str = "", tag: str = "", reason: str = ""
) -> None:
    """Make the next release now, with a number that is asked for."""
    trueup(context, "release", environment, *_options(unit=unit, bump=bump, tag=tag, reason=reason))


@task
def hotfix(
    context: Context,
    environment: str,
    unit: str = "",
    fix_branch: str = "",
    tag: str = "",
    confirm: str = "",
    reason: str = "",
) -> None:
    """Begin a branch at what an environment runs; with --confirm deploy, have it alone take its tip."""
    options = _options(unit=unit, fix_branch=fix_branch, tag=tag, confirm=confirm, reason=reason)
    trueup(context, "hotfix", environment, *options)


@task
def rollback(context: Context, environment: str, unit: str = "", to: str = "", reason: str = "") -> None:
    """Return to an earlier release of a unit, and hold it there."""
    trueup(context, "rollback", environment, *_options(unit=unit, to=to, reason=reason))


@task
def approve(context: Context, environment: str, unit: str = "", tag: str = "", reason: str = "") -> None:
    """Let a release into an environment that asks for approval."""
    trueup(context, "approve", environment, *_options(unit=unit, tag=tag, reason=reason))


@task
def hold(context: Context, environment: str, unit: str = "", reason: str = "") -> None:
    """Keep an environment, or one unit there, at the releases that it runs."""
    trueup(context, "hold", environment, *_options(unit=unit, reason=reason))


@task
def unhold(context: Context, environment: str, unit: str = "", reason: str = "") -> None:
    """End a hold, whoever or whatever set it."""
    trueup(context, "unhold", environment, *_options(unit=unit, reason=reason))


@task
def freeze(context: Context, reason: str = "") -> None:
    """Stop everything: passes look and plan, and apply nothing."""
    trueup(context, "freeze", *_options(reason=reason))


@task
def unfreeze(context: Context, reason: str = "") -> None:
    """End a freeze."""
    trueup(context, "unfreeze", *_options(reason=reason))


@task
def suspend(context: Context, resource: str, reason: str = "") -> None:
    """Leave a service, a project or an environment as it is."""
    trueup(context, "suspend", resource, *_options(reason=reason))


@task
def resume(context: Context, resource: str, reason: str = "") -> None:
    """Go on with what was suspended."""
    trueup(context, "resume", resource, *_options(reason=reason))


@task
def override(context: Context, environment: str, duration: str, reason: str) -> None:
    """Open the closed windows of an environment for a time."""
    trueup(context, "override", environment, f"--for={duration}", f"--reason={reason}")


@task
def history(context: Context, environment: str = "", output: str = "table") -> None:
    """Show the releases of an environment, or of all."""
    trueup(context, "history", "--output", output, *([environment] if environment else []))
