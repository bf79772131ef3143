"""`trueup plan --files PROJECT`: asks the running primary, or the agents themselves where none runs."""

from typing import Final
from urllib.parse import quote

import click
import msgspec

from reconciler import live
from reconciler.console import print_document
from reconciler.errors import SettingsError
from reconciler.exit_codes import ExitCode
from reconciler.file_forecasts import ProjectFiles, TargetFiles, exit_code, forecast_files, targets_of
from reconciler.logs import printable
from reconciler.progress import size
from reconciler.settings import Settings
from reconciler.status.revisions import split_revision

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


def lines_of(target: TargetFiles) -> list[str]:
    ref, commit = split_revision(target.revision)
    revision = f" to {ref}@{commit[:8]}" if commit else ""
    head = printable(f"{target.id}: {target.node}:{target.target_path}{revision}")
    if target.state in ("unknown", "left"):
        word = "unknown" if target.state == "unknown" else "left alone"
        return [head, printable(f"  {word}: {target.reason}: {target.message}")]
    lines = [head]
    width = max((len(item.deed) for item in target.items), default=0)
    for item in target.items:
        mark = "/" if item.kind == "directory" else "@" if item.kind == "symlink" else ""
        notes = []
        if item.requested_bytes or item.reused_bytes:
            notes.append(_bytes_of(item.requested_bytes, item.reused_bytes))
        if item.saved:
            notes.append("the local edit is saved")
        told = f"  ({'; '.join(notes)})" if notes else ""
        lines.append(printable(f"  {item.deed:{width}}  {item.path}{mark}{told}"))
    if target.unlisted:
        lines.append(f"  and {target.unlisted} more")
    lines += [printable(f"  warning: {warning}") for warning in target.warnings]
    lines += [printable(f"  would be refused: {each.reason}: {each.message}") for each in target.guards]
    return [*lines, f"  {_sums(target)}"]


def _sums(target: TargetFiles) -> str:
    told = [", ".join(f"{count} {deed}" for deed, count in target.counts.items()) or "nothing to do"]
    if target.files_written:
        told.append(_bytes_of(target.requested_bytes, target.reused_bytes))
    if target.after:
        told.append(printable(f"then {', '.join(target.after)}"))
    beside = {"foreign": target.foreign, "ignored": target.ignored, "edited there": target.local_edits}
    told += [f"{count} {what}" for what, count in beside.items() if count]
    return "; ".join(told)


def _bytes_of(requested: int, reused: int) -> str:
    there = f", {size(reused)} is there" if reused else ""
    # Parts of a file that moved, or that differ little, are found in the sync alone.
    return f"at most {size(requested)} to send{there}" if requested else f"nothing to send{there}"
