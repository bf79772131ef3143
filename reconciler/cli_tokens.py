"""`trueup token …`: who may use the API of a running primary."""

from typing import Any

import click

from reconciler.cli_options import output_option, parsed, with_settings


@click.group()
def token() -> None:
    """Who may use the API of a running primary over the network."""


@token.command("new")
@click.argument("name")
@with_settings
@click.option("--role", type=click.Choice(["read", "operate"]), default="read", show_default=True)
@click.option("--expires", metavar="DURATION", help="How long it lasts, such as 90d [for ever].")
@click.option("--print-only", is_flag=True, help="Print the line for the file instead of adding it.")
def token_new(settings: Any, name: str, role: Any, expires: str | None, print_only: bool) -> None:
    """Make a token, print it once, and add its digest to TRUEUP_API_TOKENS_FILE if that is set."""
    from reconciler.api_tokens import line_of
    from reconciler.primary import utc_now
    from reconciler.settings_values import parse_duration
    from reconciler.token_file import append_token, new_token

    lasts = parsed("--expires", parse_duration, expires) if expires is not None else None
    made, entry = new_token(name, role, lasts=lasts, now=utc_now)
    path = None if print_only else settings.api_tokens_file
    if path is not None:
        append_token(path, entry)
        click.echo(f"{name} was added to {path}; a running primary sees it at once", err=True)
    else:
        click.echo("add this line to TRUEUP_API_TOKENS_FILE, which only trueup may read:", err=True)
        click.echo(line_of(entry))
    click.echo("the token, which is shown only now:", err=True)
    click.echo(made.reveal())


@token.command("list")
@with_settings
@output_option
def token_list(settings: Any, output: str) -> None:
    """List the tokens of TRUEUP_API_TOKENS_FILE: names, roles, when they end; never a token."""
    from reconciler.console import print_document
    from reconciler.errors import SettingsError
    from reconciler.primary import utc_now
    from reconciler.token_file import read_tokens
    from reconciler.token_table import print_tokens, rows_of

    if settings.api_tokens_file is None:
        raise SettingsError(
            "TRUEUP_API_TOKENS_FILE is not set: the API is closed on the network",
            hint="name a file, and make a token with `trueup token new`",
        )
    rows = rows_of(read_tokens(settings.api_tokens_file), utc_now())
    if output == "table":
        print_tokens(rows)
    else:
        print_document({"version": 1, "tokens": rows}, output)
