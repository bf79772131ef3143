"""`trueup events` and its like as tasks of invoke; `tasks.py` takes them over."""

from invoke.context import Context
from invoke.tasks import task

from reconciler.invoke_releases import trueup

__all__ = ["events"]


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
