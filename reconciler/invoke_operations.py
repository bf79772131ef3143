"""`trueup backup` and its like as tasks of invoke; `tasks.py` takes them over."""

from invoke.context import Context
from invoke.tasks import task

from reconciler.invoke_releases import trueup

__all__ = ["backup", "restore"]


@task
def backup(context: Context, file: str, with_key: bool = False) -> None:
    """Write the journal, and nothing that can be fetched again, to a file."""
    trueup(context, "backup", *(["--with-key"] if with_key else []), "--", file)


@task
def restore(context: Context, file: str) -> None:
    """Put what is in a backup into the state directory, which must be empty."""
    trueup(context, "restore", "--", file)
