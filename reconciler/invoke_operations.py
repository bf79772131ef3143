"""`trueup backup`, `node install` and their like as tasks of invoke; `tasks.py` takes them over."""

from invoke.context import Context
from invoke.tasks import task

from reconciler.invoke_releases import trueup

__all__ = ["backup", "node_install", "node_rollback", "node_rotate_certificate", "restore"]


@task
def backup(context: Context, file: str, with_key: bool = False) -> None:
    """Write the journal, and nothing that can be fetched again, to a file."""
    trueup(context, "backup", *(["--with-key"] if with_key else []), "--", file)


@task
def restore(context: Context, file: str) -> None:
    """Put what is in a backup into the state directory, which must be empty."""
    trueup(context, "restore", "--", file)


@task(iterable=["primary", "root", "allow", "label"])
def node_install(
    context: Context,
    name: str,
    ssh: str,
    primary: list[str],
    root: list[str],
    allow: list[str],
    label: list[str],
    sudo: bool = False,
    dry_run: bool = False,
) -> None:
    """Install an agent on a host over ssh, join it, start it, and wait for the primary to see it."""
    given = {"primary": primary, "root": root, "allow": allow, "label": label}
    options = [f"--{option}={value}" for option, values in given.items() for value in values]
    options += [*(["--sudo"] if sudo else []), *(["--dry-run"] if dry_run else [])]
    trueup(context, "node", "install", name, f"--ssh={ssh}", *options)


@task
def node_rotate_certificate(context: Context, name: str) -> None:
    """Have a node's agent take another key and certificate, over the connection it has."""
    trueup(context, "node", "rotate-certificate", name)


@task
def node_rollback(
    context: Context, name: str, project: str, to: str = "", lift: bool = False, reason: str = ""
) -> None:
    """Switch a node back to a release that it keeps, until that is lifted."""
    options = [*([f"--to={to}"] if to else []), *(["--lift"] if lift else [])]
    trueup(context, "node", "rollback", name, project, *options, "--reason", reason)
