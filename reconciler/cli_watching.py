"""What one watches a primary with: `trueup events` and `logs`."""

from typing import Any

import click

from reconciler.cli_options import leave, output_option, parsed, run_async, with_settings


@click.command()
@with_settings
@click.option("--for", "only", metavar="KIND/NAME", help="Of one resource, or of all of a kind.")
@click.option("--kind", default="", metavar="KIND", help="Of one kind, such as failed or paired.")
@click.option("--since", metavar="DURATION", help="None that is older, such as 1h.")
@click.option("--limit", type=click.IntRange(1, 10_000), help="Of the newest so many [50; with --since all].")
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens from then on.")
@output_option
def events(settings: Any, since: str | None, output: str, **asked: Any) -> None:
    """Show what happened, the newest last: transitions, pairings, refusals."""
    from reconciler.settings_values import parse_duration
    from reconciler.watch_events import show_events

    seconds = parsed("--since", parse_duration, since) if since is not None else None
    run_async(lambda: show_events(settings, output, since=seconds, **asked))


@click.command()
@click.argument("task", metavar="[TASK|KIND/NAME]", required=False)
@with_settings
@click.option("-f", "--follow", is_flag=True, help="Until the task has ended; 0 if it succeeded, else 1.")
@click.option("--attempt", type=click.IntRange(1), metavar="NUMBER", help="Of this attempt alone.")
@output_option
def logs(settings: Any, output: str, **asked: Any) -> None:
    """Show what the attempts of a task printed: named by (the beginning of) its id, or the newest of a node,
    project or service. Without a name, list the newest tasks."""
    from reconciler.watch_logs import show_logs

    leave(run_async(lambda: show_logs(settings, output, **asked)))


WATCHING = (events, logs)
