"""The `trueup` command: verbs, thin. What they do is in the modules they call, imported when needed."""

import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from reconciler.cli_operations import NODE_OPERATIONS, OPERATIONS
from reconciler.cli_options import (
    connection_options,
    leave,
    make_settings,
    output_option,
    parsed,
    run_async,
    with_settings,
)
from reconciler.cli_releases import NODE_VERBS, VERBS
from reconciler.cli_secrets import secrets
from reconciler.cli_tokens import token
from reconciler.cli_watching import WATCHING
from reconciler.errors import SpecInvalid, TrueupError
from reconciler.exit_codes import ExitCode


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trueup")
def cli() -> None:
    """Trues hosts, secrets and releases up to git.

    \b
    Exit codes: 0 done, 1 failed, 2 changes pending (plan --detailed-exitcode),
    3 spec invalid, 4 partly applied (some resources failed or unreachable).
    """


@cli.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@connection_options
@output_option
def validate(spec: Path | None, spec_repo: str | None, output: str, **connection: Any) -> None:
    """Check a spec with all that it includes: the files at SPEC, or with --spec-repo what is pushed."""
    from reconciler.console import print_invalid, print_valid
    from reconciler.setup import validate_pushed
    from reconciler.spec.files import read_spec_files, root_file
    from reconciler.spec.load import load_or_raise

    try:
        if spec is None and spec_repo is not None:
            settings = make_settings(spec_repo=spec_repo, **connection)
            loaded = run_async(lambda: validate_pushed(settings))
        else:
            root = root_file(spec or Path())
            loaded = load_or_raise(read_spec_files(root), root=root.name)
    except SpecInvalid as invalid:
        print_invalid(invalid.problems, output)
        raise
    print_valid(loaded, output)


@cli.command()
@with_settings
@output_option
@click.option("--detailed-exitcode", is_flag=True, help="0 nothing to do, 2 changes, 1 error or unknown.")
@click.option(
    "--files", "project", metavar="PROJECT", help="What its sync would do to each file, as its agents see it."
)
@click.option("--wait-agents", default="60s", show_default=True, help="With --files: how long, for agents.")
def plan(settings: Any, output: str, detailed_exitcode: bool, project: str | None, wait_agents: str) -> None:
    """Show what a pass would do, and why; nothing is changed."""
    if project is not None:
        from reconciler.files_plan import plan_files

        patience = _patience(wait_agents)
        leave(
            run_async(
                lambda: plan_files(settings, project, output, patience=patience, detailed=detailed_exitcode)
            )
        )
    from reconciler.console import print_plan
    from reconciler.exit_codes import plan_exit_code
    from reconciler.primary import open_primary
    from reconciler.reconcile import prepare

    async def run() -> int:
        async with open_primary(settings, exclusive=False) as primary:
            prepared = await prepare(primary, patience=None)
        print_plan(prepared.plan, prepared.spec.problems, prepared.notes, output)
        return plan_exit_code(prepared.plan, prepared.spec.problems, detailed=detailed_exitcode)

    leave(run_async(run))


@cli.command()
@with_settings
@output_option
@click.option(
    "--force", "forced", multiple=True, metavar="RESOURCE", help="Act on it though nothing changed."
)
@click.option(
    "--adopt", "adopted", multiple=True, metavar="RESOURCE", help="Take over what runs; do not deploy it."
)
@click.option("--force-prune", is_flag=True, help="Let go more of what left the spec than max_prune allows.")
@click.option("--wait-agents", default="60s", show_default=True, help="How long to wait for agents.")
def reconcile(
    settings: Any,
    output: str,
    forced: tuple[str, ...],
    adopted: tuple[str, ...],
    force_prune: bool,
    wait_agents: str,
) -> None:
    """Run one pass, wait for its steps, and exit."""
    from reconciler.console import print_pass
    from reconciler.console_progress import PassProgress
    from reconciler.exit_codes import pass_exit_code
    from reconciler.hardening import forbid_core_dumps
    from reconciler.notifications.notifier import Notifier
    from reconciler.primary import open_primary
    from reconciler.reconcile import reconcile as run_pass

    patience = _patience(wait_agents)
    forbid_core_dumps()

    async def run() -> int:
        async with open_primary(settings) as primary:
            with PassProgress(shown=settings.log_format == "text") as progress:
                primary.in_background(progress.follow, primary.running.all)
                done = await run_pass(
                    primary,
                    patience=patience,
                    forced=forced,
                    adopted=adopted,
                    force_prune=force_prune,
                    on_plan=progress.expect,
                    on_change=progress,
                )
            await Notifier(primary).drain()
        print_pass(done, output)
        return pass_exit_code(done)

    leave(run_async(run))


def _patience(text: str) -> float:
    """Seconds to wait for agents."""
    from reconciler.settings_values import parse_duration

    return 0.0 if text in ("0", "0s") else parsed("--wait-agents", parse_duration, text)


@cli.command()
@with_settings
def serve(settings: Any) -> None:
    """Go on running: passes at intervals and on request, agents, webhooks. Ends with SIGTERM."""
    from reconciler.serve import serve as run

    run_async(lambda: run(settings))


@cli.command()
@with_settings
@click.argument("resource", required=False)
@click.option("-w", "--watch", is_flag=True, help="Go on with each row that changes.")
@click.option("--progress", is_flag=True, help="With -w: how far tasks are, where no terminal shows it, too.")
@output_option
def get(settings: Any, resource: str | None, watch: bool, progress: bool, output: str) -> None:
    """Show what the status files say: of everything, of a KIND, or of one KIND/NAME."""
    from reconciler.console import print_status
    from reconciler.primary import open_repositories, read_status
    from reconciler.watch_status import watch_status

    if progress and not watch:
        raise click.UsageError("--progress goes with -w")

    async def run() -> None:
        if watch:
            await watch_status(settings, resource, output, progress=progress)
        print_status(await read_status(settings, open_repositories(settings)), resource, output)

    run_async(run)


@cli.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@with_settings
def init(settings: Any, directory: Path) -> None:
    """Write a commented starter spec into DIRECTORY, and make the master key if there is none."""
    from reconciler.setup import write_starter

    for line in write_starter(settings, directory):
        click.echo(line)


@cli.command()
def demo() -> None:
    """Run two passes over a small project on this machine alone, and leave nothing behind."""
    from reconciler.demo import run_demo

    run_demo()


@cli.group()
def key() -> None:
    """The master key: all that must be backed up."""


@key.command("new")
@with_settings
def key_new(settings: Any) -> None:
    """Make the master key in the state directory; an existing one is never overwritten."""
    from reconciler.setup import make_key

    for line in make_key(settings):
        click.echo(line)


@key.command("show")
@with_settings
@click.option("--reveal", is_flag=True, help="Print the key itself, for a backup.")
def key_show(settings: Any, reveal: bool) -> None:
    """Show the key's id and the fingerprints that derive from it."""
    from reconciler.setup import describe_key

    for line in describe_key(settings, reveal=reveal):
        click.echo(line)


cli.add_command(secrets)
cli.add_command(token)
for verb in (*VERBS, *OPERATIONS, *WATCHING):
    cli.add_command(verb)


primaries_option = click.option(
    "--primary", "primaries", multiple=True, metavar="HOST:PORT", help="Where agents reach this primary."
)


@cli.group()
def node() -> None:
    """The hosts that agents run on."""


for verb in (*NODE_OPERATIONS, *NODE_VERBS):
    node.add_command(verb)


@node.command("add")
@click.argument("name")
@with_settings
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be repeated.")
@primaries_option
@click.option("--dry-run", is_flag=True, help="Print the lines for the spec instead of committing them.")
def node_add(
    settings: Any, name: str, labels: tuple[str, ...], primaries: tuple[str, ...], dry_run: bool
) -> None:
    """Make a node's token, commit its public half to the spec, and print the command to join."""
    from reconciler.nodes import add_node

    lines = run_async(lambda: add_node(settings, name, labels=labels, primaries=primaries, dry_run=dry_run))
    for line in lines:
        click.echo(line)


@node.command("rotate-token")
@click.argument("name")
@with_settings
@primaries_option
def node_rotate_token(settings: Any, name: str, primaries: tuple[str, ...]) -> None:
    """Give a node a new token in the spec, and print the command to join with it."""
    from reconciler.live_nodes import rotate_token

    for line in run_async(lambda: rotate_token(settings, name, primaries=primaries)):
        click.echo(line)


@node.command("rotate-certificate")
@click.argument("name")
@with_settings
def node_rotate_certificate(settings: Any, name: str) -> None:
    """Have a node's agent take another key and certificate, over the connection it has."""
    from reconciler.live_nodes import rotate_certificate

    click.echo(run_async(lambda: rotate_certificate(settings, name)))


@node.command("repair")
@click.argument("name")
@with_settings
def node_repair(settings: Any, name: str) -> None:
    """Forget the certificate of a node, so that its host can join again with its token."""
    from reconciler.live_nodes import repair

    for line in run_async(lambda: repair(settings, name)):
        click.echo(line)


@node.command("revoke")
@click.argument("name")
@with_settings
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
def node_revoke(settings: Any, name: str, reason: str) -> None:
    """Take a node's token back: its agent is disconnected, whatever the spec says."""
    from reconciler.live_nodes import revoke

    for line in run_async(lambda: revoke(settings, name, reason)):
        click.echo(line)


@node.command("test")
@click.argument("name")
@with_settings
@output_option
def node_test(settings: Any, name: str, output: str) -> None:
    """Ask a running primary whether a node's agent is connected, and how fast it answers."""
    from reconciler.live_nodes import test

    leave(run_async(lambda: test(settings, name, output)))


@node.command("list")
@with_settings
@output_option
def node_list(settings: Any, output: str) -> None:
    """List the nodes of the spec and what the status files know of them."""
    from reconciler.nodes import list_nodes

    run_async(lambda: list_nodes(settings, output))


def main() -> None:
    """The entry point: every error a person may meet ends as one line and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.FAILED)
    except TrueupError as error:
        _report(error)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseExceptionGroup as group:
        errors = _leaves(group)
        if any(isinstance(error, KeyboardInterrupt) for error in errors):
            sys.exit(130)
        if any(isinstance(error, BrokenPipeError) for error in errors):
            sys.exit(141)
        unexpected = [error for error in errors if not isinstance(error, TrueupError)]
        if unexpected:
            _report_bug(unexpected[0])
        _report(*(error for error in errors if isinstance(error, TrueupError)))
    except Exception as error:
        _report_bug(error)


def _report(*errors: TrueupError) -> NoReturn:
    from reconciler.logs import printable

    for error in errors:
        for line in str(error).splitlines():
            shown = printable(line, keep="\t")
            click.echo(f"error: {shown}", err=True)
    sys.exit(max(error.exit_code for error in errors))


def _report_bug(error: BaseException) -> NoReturn:
    """An error that nobody expected: where it was, without values that its text may hold."""
    if "-vv" in sys.argv:
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    click.echo(
        f"error: internal error: {type(error).__name__}{where}; "
        "this is a bug in trueup, -vv shows the traceback for a report",
        err=True,
    )
    sys.exit(ExitCode.FAILED)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
