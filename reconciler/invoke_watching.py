"""`trueup events` and its like as tasks of invoke; `tasks.py` takes them over."""

from invoke.context import Context
from invoke.tasks import task

from reconciler.invoke_releases import trueup

__all__ = ["events", "get", "logs"]


@task
def events(
    context: Context,
    only: str = "",
    kind: str = "",
    since: str = "",
    limit: int = 0,
    watch: bool = False,
    output: str = "table",
) -> None:
    """Show what happened, the newest last: transitions, pairings, refusals."""
    given = {"for": only, "kind": kind, "since": since, "limit": str(limit or "")}
    options = [f"--{name}={value}" for name, value in given.items() if value]
    trueup(context, "events", "--output", output, *options, *(["--watch"] if watch else []))


@task
def logs(
    context: Context, task: str = "", follow: bool = False, attempt: int = 0, output: str = "table"
) -> None:
    """Show what the attempts of a task printed; without a name, list the newest tasks."""
    options = [*(["--follow"] if follow else []), *([f"--attempt={attempt}"] if attempt else [])]
    trueup(context, "logs", "--output", output, *options, *([task] if task else []))


@task
def get(
    context: Context, resource: str = "", watch: bool = False, progress: bool = False, output: str = "table"
) -> None:
    """Show what the status files say: of everything, of a KIND, or of one KIND/NAME."""
    options = [*(["--watch"] if watch else []), *(["--progress"] if progress else [])]
    trueup(context, "get", "--output", output, *options, *([resource] if resource else []))
