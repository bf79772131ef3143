"""`trueup plan --files PROJECT`: asks the running primary, or the agents themselves where none runs."""

from typing import Final
from urllib.parse import quote

import click
import msgspec

from reconciler import live
from reconciler.console import print_document
from reconciler.errors import SettingsError
from reconciler.exit_codes import ExitCode
from reconciler.file_forecasts import ProjectFiles, exit_code, forecast_files, targets_of
from reconciler.file_lines import lines_of
from reconciler.logs import printable
from reconciler.settings import Settings

DEADLINE: Final = 920.0
"""Seconds to wait for a running primary, which may have to build the project and gives up sooner."""


async def plan_files(
    settings: Settings, project: str, output: str, *, patience: float, detailed: bool
) -> ExitCode:
    """The exit code. `patience`: seconds to wait for agents where no primary is running."""
    scope, name = _parts(project)
    path = f"/api/sync/projects/{quote(name, safe='')}/files"
    params = {"environment": scope} if scope else {}
    document = await live.request_if_running(settings, "GET", path, params=params, deadline=DEADLINE)
    if document is not None:
        files = msgspec.convert(document, ProjectFiles)
    else:
        files = await _ask_agents(settings, scope, name, patience)
    if output != "table":
        print_document(msgspec.to_builtins(files), output)
    else:
        print_files(files)
    return exit_code(files, detailed=detailed)


def _parts(project: str) -> tuple[str, str]:
    """Of `NAME`, or `projects/ENVIRONMENT/NAME`: environment, empty for any, and name."""
    kind, _, rest = project.partition("/")
    scope, _, name = rest.partition("/")
    if not rest and project:
        return "", project
    if kind != "projects" or not scope or not name or "/" in name:
        raise SettingsError(
            f"--files: {project!r} is no project", hint="give its name, or projects/ENVIRONMENT/NAME"
        )
    return scope, name


async def _ask_agents(settings: Settings, scope: str, name: str, patience: float) -> ProjectFiles:
    from reconciler.primary import open_primary
    from reconciler.reconcile import prepare

    # Alone, as agents have to be listened for where a primary would.
    async with open_primary(settings) as primary:
        prepared = await prepare(primary, patience=None)
        syncs = targets_of(prepared, name, scope)
        if not syncs:
            raise SettingsError(
                f"the spec has no project {name} with targets", hint="see all with `trueup get projects`"
            )
        fleet = await primary.fleet(prepared.spec.spec, patience=patience)
        return await forecast_files(primary, prepared, syncs, fleet)


def print_files(files: ProjectFiles) -> None:
    """A block of lines for each target; nothing in it acts on a terminal."""
    for problem in files.problems:
        click.echo(f"error: {printable(problem)}", err=True)
    for number, target in enumerate(files.targets):
        for line in [*([""] if number else []), *lines_of(target)]:
            click.echo(line)
