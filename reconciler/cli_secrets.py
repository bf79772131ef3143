"""`trueup secrets …`: the sources of secrets and who uses them. Names, ages and states, never values."""

from typing import Any

import click

from reconciler.cli_options import leave, output_option, parsed, run_async, with_settings


@click.group()
def secrets() -> None:
    """The sources of secrets and who uses them: names, ages and states, never values."""


@secrets.command("list")
@with_settings
@output_option
@click.option("--recorded", is_flag=True, help="Only what the status files say; no source is asked.")
def secrets_list(settings: Any, output: str, recorded: bool) -> None:
    """Show each source: what it serves, how fresh that is, and what uses it."""
    from reconciler.secrets_list import list_sources

    leave(run_async(lambda: list_sources(settings, output, recorded=recorded)))


source_argument = click.argument("source", required=False)


@secrets.command("sync")
@source_argument
@with_settings
@output_option
def secrets_sync(settings: Any, source: str | None, output: str) -> None:
    """Ask a source itself now, or all, whatever is cached; of a running primary where there is one."""
    from reconciler.secrets_sync import sync_sources

    leave(run_async(lambda: sync_sources(settings, source, output)))


@secrets.command("clear-cache")
@source_argument
@with_settings
@output_option
def secrets_clear_cache(settings: Any, source: str | None, output: str) -> None:
    """Forget what was fetched from a source, or from all: in a running primary, and on disk."""
    from reconciler.secrets_sync import clear_cache

    leave(run_async(lambda: clear_cache(settings, source, output)))


@secrets.command("diff")
@source_argument
@with_settings
@output_option
@click.option("--detailed-exitcode", is_flag=True, help="0 nothing to do, 2 changes, 1 error or unknown.")
def secrets_diff(settings: Any, source: str | None, output: str, detailed_exitcode: bool) -> None:
    """Show which keys changed since the last pass, and what would be deployed, synced or pushed for it."""
    from reconciler.secrets_diff import diff_sources

    leave(run_async(lambda: diff_sources(settings, source, output, detailed=detailed_exitcode)))


@secrets.command("audit")
@click.argument("name", metavar="[NAME]", required=False)
@with_settings
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@output_option
def secrets_audit(settings: Any, name: str | None, limit: int, output: str) -> None:
    """Show who got which secret and when, the newest first."""
    from reconciler.secrets_audit import print_audit

    print_audit(settings, name, limit, output)


@secrets.command("check")
@click.argument("repo", metavar="OWNER/REPO")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@with_settings
@click.option("--from", "source", metavar="SOURCE", help="A source of the spec [its only github_actions].")
@click.option("--source-repo", metavar="OWNER/REPO", help="The repository itself [SOURCE_SECRETS_REPO].")
@click.option("--environment", metavar="NAME", help="An environment of the repository, at GitHub.")
@click.option("--refresh", is_flag=True, help="Also export what is newer in the source.")
@click.option("--timeout", default="30s", show_default=True, help="How long to wait for an export.")
@click.option("--dry-run", is_flag=True, help="Only say what is missing.")
@output_option
def secrets_check(settings: Any, output: str, timeout: str, **request: Any) -> None:
    """Have secrets that a GitHub repository lacks exported to it; 0 if all are there in the end, else 1."""
    from reconciler.secrets_check import CheckRequest, check_secrets
    from reconciler.settings_values import parse_duration

    asked = CheckRequest(patience=parsed("--timeout", parse_duration, timeout), **request)
    leave(run_async(lambda: check_secrets(settings, asked, output)))
