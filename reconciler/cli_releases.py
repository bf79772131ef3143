"""The verbs with which operators decide: releases, holds, a freeze. Each appends to the control branch."""

from typing import TYPE_CHECKING, Any

import click

from reconciler.cli_options import output_option, parsed, run_async, with_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from reconciler.control.records import Record
    from reconciler.control.situation import Situation

environment_argument = click.argument("environment", metavar="ENV")
unit_option = click.option("--unit", metavar="UNIT", help="One unit of it; else all of them.")
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why, for people.")


def _record(settings: Any, output: str, order: "Callable[[ModuleType, Situation], Record]") -> None:
    """Append what `order` makes of `control.orders`, which is imported here, and of the situation."""
    from reconciler.control import orders
    from reconciler.operations import decide

    run_async(lambda: decide(settings, lambda at: [order(orders, at)], output))


@click.command()
@environment_argument
@with_settings
@unit_option
@reason_option
@output_option
def hold(settings: Any, environment: str, unit: str | None, reason: str, output: str) -> None:
    """Keep an environment, or one unit there, at the releases that it runs."""
    _record(settings, output, lambda orders, at: orders.hold(at, environment, unit, reason))


@click.command()
@environment_argument
@with_settings
@unit_option
@reason_option
@output_option
def unhold(settings: Any, environment: str, unit: str | None, reason: str, output: str) -> None:
    """End a hold, whoever or whatever set it."""
    _record(settings, output, lambda orders, at: orders.unhold(at, environment, unit, reason))


@click.command()
@with_settings
@reason_option
@output_option
def freeze(settings: Any, reason: str, output: str) -> None:
    """Stop everything: passes look and plan, and apply nothing."""
    _record(settings, output, lambda orders, at: orders.freeze(at, reason))


@click.command()
@with_settings
@reason_option
@output_option
def unfreeze(settings: Any, reason: str, output: str) -> None:
    """End a freeze."""
    _record(settings, output, lambda orders, at: orders.unfreeze(at, reason))


@click.command()
@click.argument("resource", metavar="KIND/NAME")
@with_settings
@reason_option
@output_option
def suspend(settings: Any, resource: str, reason: str, output: str) -> None:
    """Leave a service, a project or an environment as it is; `services/web` is in every environment."""
    _record(settings, output, lambda orders, at: orders.suspend(at, resource, reason))


@click.command()
@click.argument("resource", metavar="KIND/NAME")
@with_settings
@reason_option
@output_option
def resume(settings: Any, resource: str, reason: str, output: str) -> None:
    """Go on with what was suspended."""
    _record(settings, output, lambda orders, at: orders.resume(at, resource, reason))


@click.command()
@environment_argument
@with_settings
@click.option("--for", "duration", required=True, metavar="DURATION", help="How long, such as 2h.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for people.")
@output_option
def override(settings: Any, environment: str, duration: str, reason: str, output: str) -> None:
    """Open the closed windows of an environment for a time."""
    from reconciler.settings_values import parse_duration

    seconds = parsed("--for", parse_duration, duration)
    _record(settings, output, lambda orders, at: orders.override(at, environment, seconds, reason))


@click.command()
@click.argument("environment", metavar="[ENV]", required=False)
@with_settings
@output_option
def history(settings: Any, environment: str | None, output: str) -> None:
    """Show the releases of an environment, or of all: what, between which commits, by whom, how it went."""
    from reconciler.history import print_history

    run_async(lambda: print_history(settings, environment, output))


confirm_option = click.option(
    "--confirm", type=click.Choice(["deploy"]), help="Without it, only say what would be done."
)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@with_settings
@unit_option
@click.option("--tag", metavar="TAG", help="An earlier release of FROM; else the one that it runs.")
@click.option("--drop-hotfix", is_flag=True, help="Also where commits of a hotfix are lost by it.")
@confirm_option
@reason_option
@output_option
def promote(settings: Any, source: str, target: str, confirm: str | None, output: str, **asked: Any) -> None:
    """Have TO take what FROM runs, with the next number of its own."""
    from reconciler.decisions import promote as run
    from reconciler.operations import tell

    confirmed = confirm is not None
    run_async(
        lambda: tell(settings, lambda desk: run(desk, source, target, confirmed=confirmed, **asked), output)
    )


@click.command()
@environment_argument
@with_settings
@unit_option
@click.option("--bump", type=click.Choice(["patch", "minor", "major"]), help="Which number is raised.")
@click.option("--tag", metavar="TAG", help="Take over a tag that is there, as the first release of ENV.")
@reason_option
@output_option
def release(settings: Any, environment: str, bump: str | None, output: str, **asked: Any) -> None:
    """Make the next release now, with a number that is asked for."""
    from reconciler.decisions import release as run
    from reconciler.operations import tell

    run_async(lambda: tell(settings, lambda desk: run(desk, environment, bump=bump or "", **asked), output))


@click.command()
@environment_argument
@with_settings
@click.option("--unit", metavar="UNIT", help="Which one, where the environment has several.")
@click.option("--fix-branch", metavar="NAME", help="The branch of the fix [hotfix/UNIT-VERSION].")
@click.option("--tag", metavar="TAG", help="A tag of the fix instead of a branch.")
@confirm_option
@reason_option
@output_option
def hotfix(settings: Any, environment: str, confirm: str | None, output: str, **asked: Any) -> None:
    """Begin a branch at what ENV runs; with --confirm deploy, have ENV alone take its tip."""
    from reconciler.hotfix import hotfix as run
    from reconciler.operations import open_desk, show_hotfix

    async def made() -> None:
        desk = await open_desk(settings)
        begun = await run(desk, environment, confirmed=confirm is not None, **asked)
        await show_hotfix(settings, begun, output)

    run_async(made)


@click.command()
@environment_argument
@with_settings
@click.option("--unit", metavar="UNIT", help="Which one, where the environment has several.")
@click.option("--to", metavar="TAG", help="An earlier release; else the last one that ran.")
@reason_option
@output_option
def rollback(settings: Any, environment: str, output: str, **asked: Any) -> None:
    """Return to an earlier release of a unit, and hold it there."""
    from reconciler.decisions import rollback as run
    from reconciler.operations import tell

    run_async(lambda: tell(settings, lambda desk: run(desk, environment, **asked), output))


@click.command()
@environment_argument
@with_settings
@unit_option
@click.option("--tag", metavar="TAG", help="The release that is meant, by its tag in the source.")
@reason_option
@output_option
def approve(settings: Any, environment: str, output: str, **asked: Any) -> None:
    """Let a release into an environment that asks for approval."""
    from reconciler.decisions import approve as run
    from reconciler.operations import tell

    run_async(lambda: tell(settings, lambda desk: run(desk, environment, **asked), output))


@click.command("rollback")
@click.argument("name")
@click.argument("project")
@with_settings
@click.option("--to", metavar="REVISION", help="A release that it keeps; else the one before.")
@click.option("--lift", is_flag=True, help="End that: the node follows the project again.")
@reason_option
@output_option
def node_rollback(settings: Any, name: str, project: str, output: str, **asked: Any) -> None:
    """Switch a node back to a release of a project that it keeps, and leave it there."""
    from reconciler.decisions import node_rollback as run
    from reconciler.operations import tell

    run_async(lambda: tell(settings, lambda desk: run(desk, name, project, **asked), output))


NODE_VERBS = (node_rollback,)
VERBS = (
    *(promote, release, hotfix, rollback, approve, history),
    *(hold, unhold, freeze, unfreeze, suspend, resume, override),
)
