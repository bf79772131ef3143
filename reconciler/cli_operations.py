"""What keeps a primary itself in order: `trueup backup` and `trueup restore`."""

from typing import Any

import click

from reconciler.cli_options import with_settings


@click.command()
@click.argument("file", metavar="FILE|-")
@with_settings
@click.option("--with-key", is_flag=True, help="The master key too: keep such a file as you keep the key.")
def backup(settings: Any, file: str, with_key: bool) -> None:
    """Write the journal, and nothing that can be fetched again, to FILE; a primary may be running."""
    from reconciler.backup import back_up

    for line in back_up(settings, file, with_key=with_key):
        click.echo(line, err=file == "-")


@click.command()
@click.argument("file", metavar="FILE|-")
@with_settings
def restore(settings: Any, file: str) -> None:
    """Put what is in a backup into the state directory, which must be empty."""
    from reconciler.backup import restore as restore_backup

    for line in restore_backup(settings, file):
        click.echo(line)


OPERATIONS = (backup, restore)
