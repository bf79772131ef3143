"""What keeps primaries and hosts in order: `trueup backup`, `restore`, `notify test` and `node install`."""

from pathlib import Path
from typing import Any

import click

from reconciler.cli_options import leave, parsed, run_async, with_settings


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


@click.command("install")
@click.argument("name")
@with_settings
@click.option("--ssh", "destination", required=True, metavar="USER@HOST", help="As ssh takes it.")
@click.option("--port", type=int, help="ssh's port there.")
@click.option("--ssh-config", type=click.Path(path_type=Path), help="Another configuration of ssh.")
@click.option("--sudo", is_flag=True, help="Run everything there with `sudo -n`.")
@click.option("--primary", "primaries", multiple=True, metavar="HOST:PORT", help="Where agents reach it.")
@click.option("--root", "roots", multiple=True, metavar="DIR", help="What trueup may write; may be repeated.")
@click.option("--owner", "owners", multiple=True, metavar="NAME", help="Who files may be given to.")
@click.option("--allow", multiple=True, metavar="NAME=COMMAND", help="A command that may run after a sync.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of a node that is new.")
@click.option("--user", default="", metavar="NAME", help="The account the agent runs as; made if need be.")
@click.option("--prefix", default="/opt/trueup", show_default=True, help="Where the agent is installed.")
@click.option("--config", default="/etc/trueup/agent.toml", show_default=True, help="Its configuration.")
@click.option("--host-state", default="/var/lib/trueup-agent", show_default=True, help="Its records there.")
@click.option("--unit", default="trueup-agent", show_default=True, help="The name of its systemd unit.")
@click.option("--unit-dir", default="/etc/systemd/system", show_default=True, help="Where units are.")
@click.option("--no-service", is_flag=True, help="Install and join; whoever else starts it.")
@click.option("--python", default="python3", show_default=True, help="The Python that is used there.")
@click.option("--offline", is_flag=True, help="Download here what it needs, and copy that too.")
@click.option("--wheel", type=click.Path(path_type=Path), help="Install this, not what runs here.")
@click.option("--lock", type=click.Path(path_type=Path), help="Its libraries, with hashes.")
@click.option("--token-file", metavar="FILE|-", help="The token of a node that is in the spec already.")
@click.option("--replace", is_flag=True, help="Take the place of another host of this name.")
@click.option("--wait", default="120s", show_default=True, help="How long the primary may take to accept it.")
@click.option("--dry-run", is_flag=True, help="Look, and print each command; change nothing.")
def node_install(settings: Any, dry_run: bool, wait: str, **given: Any) -> None:
    """Install an agent on a host over ssh, join it, start it, and wait for the primary to see it.

    Run again it upgrades. Where a step fails, all that was done is taken back.
    """
    from reconciler.install.node import install_node, show_plan
    from reconciler.install.request import make_request
    from reconciler.settings_values import parse_duration

    request = make_request(settings, wait=parsed("--wait", parse_duration, wait), **given)
    act = show_plan if dry_run else install_node
    run_async(lambda: act(settings, request, click.echo))


@click.group()
def notify() -> None:
    """The channels that people are told on."""


@notify.command("test")
@click.argument("place", required=False, type=click.IntRange(min=0))
@with_settings
def notify_test(settings: Any, place: int | None) -> None:
    """Send a message to each channel of the spec, or to the one at PLACE, counted from 0."""
    from reconciler.notifications.trying import try_channels

    leave(run_async(lambda: try_channels(settings, place, click.echo)))


OPERATIONS = (backup, restore, notify)
NODE_OPERATIONS = (node_install,)
