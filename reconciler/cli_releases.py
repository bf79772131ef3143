"""The verbs with which operators decide: releases, holds, a freeze. Each appends to the control branch."""

from typing import Any

import click

from reconciler.cli_options import output_option, parsed, run_async, with_settings

environment_argument = click.argument("environment", metavar="ENV")
unit_option = click.option("--unit", metavar="UNIT", help="One unit of it; else all of them.")
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why, for people.")


@click.command()
@environment_argument
@with_settings
@unit_option
@reason_option
@output_option
def hold(settings: Any, environment: str, unit: str | None, reason: str, output: str) -> None:
    """Keep an environment, or one unit there, at the releases that it runs."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.hold(at, environment, unit, reason)], output))


@click.command()
@environment_argument
@with_settings
@unit_option
@reason_option
@output_option
def unhold(settings: Any, environment: str, unit: str | None, reason: str, output: str) -> None:
    """End a hold, whoever or whatever set it."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.unhold(at, environment, unit, reason)], output))


@click.command()
@with_settings
@reason_option
@output_option
def freeze(settings: Any, reason: str, output: str) -> None:
    """Stop everything: passes look and plan, and apply nothing."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.freeze(at, reason)], output))


@click.command()
@with_settings
@reason_option
@output_option
def unfreeze(settings: Any, reason: str, output: str) -> None:
    """End a freeze."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.unfreeze(at, reason)], output))


@click.command()
@click.argument("resource", metavar="KIND/NAME")
@with_settings
@reason_option
@output_option
def suspend(settings: Any, resource: str, reason: str, output: str) -> None:
    """Leave a service, a project or an environment as it is; `services/web` is in every environment."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.suspend(at, resource, reason)], output))


@click.command()
@click.argument("resource", metavar="KIND/NAME")
@with_settings
@reason_option
@output_option
def resume(settings: Any, resource: str, reason: str, output: str) -> None:
    """Go on with what was suspended."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [orders.resume(at, resource, reason)], output))


@click.command()
@environment_argument
@with_settings
@click.option("--for", "duration", required=True, metavar="DURATION", help="How long, such as 2h.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for people.")
@output_option
def override(settings: Any, environment: str, duration: str, reason: str, output: str) -> None:
    """Open the closed windows of an environment for a time."""
    from reconciler.control import orders
    from reconciler.operations import decide
    from reconciler.settings_values import parse_duration

    seconds = parsed("--for", parse_duration, duration)
    run_async(
        lambda: decide(settings, lambda at: [orders.override(at, environment, seconds, reason)], output)
    )


@click.command()
@click.argument("environment", metavar="[ENV]", required=False)
@with_settings
@output_option
def history(settings: Any, environment: str | None, output: str) -> None:
    """Show the releases of an environment, or of all: what, between which commits, by whom, how it went."""
    from reconciler.history import print_history

    run_async(lambda: print_history(settings, environment, output))


VERBS = (hold, unhold, freeze, unfreeze, suspend, resume, override, history)
