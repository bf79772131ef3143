"""What one watches a primary with: `trueup events`."""

from typing import Any

import click

from reconciler.cli_options import output_option, parsed, run_async, with_settings


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


WATCHING = (events,)
