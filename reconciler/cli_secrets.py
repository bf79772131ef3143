"""`trueup secrets …`: the sources of secrets and who uses them. Names, ages and states, never values."""

from typing import Any

import click

from reconciler.cli_options import leave, output_option, run_async, with_settings


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
