"""What people read on standard output: plans, passes and status, as a table or as one document."""

import json
import re
import sys
from collections.abc import Mapping, Sequence

import click
import msgspec
import yaml
from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from reconciler.apply import Outcome
from reconciler.errors import Problem, SettingsError
from reconciler.notes import notes_of_spec
from reconciler.plan import Action, Plan, Step, to_document
from reconciler.reconcile import Pass
from reconciler.selecting import selection
from reconciler.spec.model import Spec
from reconciler.status.conditions import ConditionType, find_condition
from reconciler.status.documents import AnyDocument, Applied, EnvironmentStatus, Recorded, SyncStatus
from reconciler.status.revisions import split_revision

SHORT_ID = 8
"""Characters of a task's id that tell it from all others."""

COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "blocked": "yellow",
    "True": "green",
    "False": "red",
    "Unknown": "yellow",
}


def print_plan(plan: Plan, problems: Sequence[Problem], notes: Sequence[str], output: str) -> None:
    """Each step with its reason, then what cannot be planned and why, then what is worth a look."""
    report_problems(problems, plan)
    if output != "table":
        report_findings(plan)
        print_document(plan_document(plan, problems, notes), output)
        return
    if plan.steps:
        table = make_table("ACTION", "RESOURCE", "REASON")
        for step in plan.steps:
            table.add_row(step.action.value, Text(step.resource), Text(step.reason))
        print_table(table)
    if plan.findings:
        table = make_table("NOT PLANNED", "REASON", "WHY")
        for finding in plan.findings:
            table.add_row(Text(finding.resource), finding.reason, Text(finding.message))
        print_table(table)
    if not plan.steps:
        click.echo("nothing else to do" if plan.findings or problems else "nothing to do")
    else:
        click.echo(f"{len(plan.steps)} step{'s' if len(plan.steps) > 1 else ''}")
    report_notes(notes)


def plan_document(plan: Plan, problems: Sequence[Problem], notes: Sequence[str]) -> dict[str, object]:
    """A plan as one JSON document."""
    return {
        **to_document(plan),
        "problems": [str(problem) for problem in problems],
        "notes": list(notes),
    }


def print_pass(done: Pass, output: str) -> None:
    """What each step came to."""
    report_problems(done.problems, done.plan)
    if output != "table":
        report_findings(done.plan)
        print_document(pass_document(done), output)
        return
    if done.before_return is not None:
        _print_steps(done.before_return)
    for line in done.returned:
        click.echo(line)
    _print_steps(done)
    if done.plan.findings:
        table = make_table("NOT IN ORDER", "REASON", "WHY")
        for finding in done.plan.findings:
            table.add_row(Text(finding.resource), finding.reason, Text(finding.message))
        print_table(table)
    if not done.plan.steps:
        click.echo("nothing else to do" if done.plan.findings or done.problems else "nothing to do")
    if done.status_commit is not None:
        click.echo(f"status written: {done.status_commit[:12]}")


def _print_steps(done: Pass) -> None:
    if not done.plan.steps:
        return
    table = make_table("OUTCOME", "ACTION", "RESOURCE", "WHY")
    for step in done.plan.steps:
        outcome = done.outcomes[step.resource]
        succeeded = outcome.state == "succeeded"
        why = _with_counts(step, outcome) if succeeded else f"{outcome.reason}: {outcome.message}"
        table.add_row(
            Text(outcome.state, COLOURS[outcome.state]), step.action.value, Text(step.resource), Text(why)
        )
    print_table(table)
    for resource, outcome in done.outcomes.items():
        if (task := outcome.details.get("task")) and outcome.state == "failed":
            click.echo(f"{resource}: `trueup logs {str(task)[:SHORT_ID]}` has what its attempts printed")


def _with_counts(step: Step, outcome: Outcome) -> str:
    """Why there was a step, and what it changed where that can be counted."""
    if step.action not in (Action.SYNC, Action.REMOVE) or "files_deleted" not in outcome.details:
        return step.reason
    told = outcome.details
    said = [f"{told['files_written']} written"] if "files_written" in told else []
    said.append(f"{told['files_deleted']} deleted")
    return "; ".join([step.reason, ", ".join(said), *(f"warning: {each}" for each in outcome.warnings)])


def pass_document(done: Pass) -> dict[str, object]:
    """A pass as one JSON document."""
    return {
        **plan_document(done.plan, done.problems, done.notes),
        "outcomes": {
            resource: {
                "state": outcome.state,
                "reason": outcome.reason,
                "message": outcome.message,
                "details": dict(outcome.details),
            }
            for resource, outcome in done.outcomes.items()
        },
        "statusCommit": done.status_commit,
        "returned": list(done.returned),
    }


def print_valid(spec: Spec, output: str) -> None:
    """What a valid spec holds, and what in it is worth a look."""
    notes = notes_of_spec(spec)
    counts = {"service": len(spec.services), "project": len(spec.projects), "node": len(spec.nodes)}
    if output != "table":
        held = {f"{kind}s": count for kind, count in counts.items()}
        print_document({"version": 1, "valid": True, **held, "problems": [], "notes": notes}, output)
        return
    report_notes(notes)
    told = (f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
    click.echo(f"valid: {', '.join(told)}")


def print_invalid(problems: Sequence[Problem], output: str) -> None:
    """The document for machines; people read the problems on standard error."""
    if output != "table":
        told = [str(problem) for problem in problems]
        print_document({"version": 1, "valid": False, "problems": told, "notes": []}, output)


def report_problems(problems: Sequence[Problem], plan: Plan) -> None:
    """The spec's errors, and what holds in spite of them, on standard error."""
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if any(problem.resource is None for problem in problems):
        click.echo(f"the last good spec stays active: {plan.spec_revision}", err=True)
    elif problems:
        click.echo("what these concern stays as it was; everything else goes on", err=True)


def report_notes(notes: Sequence[str]) -> None:
    """What is valid and worth a look, on standard error: no script that reads the answer minds it."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


def report_findings(plan: Plan) -> None:
    """Why a pass or a plan is not a success, for people beside a document that is for machines."""
    for finding in plan.findings:
        if finding.unknown or finding.blocks:
            click.echo(f"error: {finding.resource}: {finding.reason}: {finding.message}", err=True)


def print_status(recorded: Recorded, resource: str | None, output: str) -> None:
    """The status of everything, of one kind (`services`), or of one resource (`services/staging/web`)."""
    documents = _selected(recorded, resource)
    if output != "table":
        print_document([msgspec.to_builtins(document) for document in documents], output)
        return
    if not documents:
        click.echo("no status yet: no pass has written any")
        return
    table = make_table(*STATUS_COLUMNS)
    for document in documents:
        table.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in status_row(document)))
    print_table(table)


STATUS_COLUMNS = ("RESOURCE", "READY", "REASON", "APPLIED", "MESSAGE")


def status_row(document: AnyDocument) -> tuple[str, ...]:
    """What people read of a status file."""
    ready = find_condition(document.conditions, ConditionType.READY)
    return (
        document.id,
        ready.status if ready else "Unknown",
        ready.reason if ready else "",
        _short_revision(document),
        _message(document),
    )


def _selected(recorded: Recorded, resource: str | None) -> list[AnyDocument]:
    documents = sorted(recorded.documents(), key=lambda document: document.id)
    if resource is None:
        return documents
    wanted = selection(resource)
    found = [document for document in documents if wanted.has(document.id)]
    if not found:
        raise SettingsError(f"the status branch has nothing of {resource}", hint="see all with `trueup get`")
    return found


def _message(document: AnyDocument) -> str:
    """What `Ready` says, and what it does not: that a deploy is not well, that a target was switched back,
    that what was edited there stays."""
    ready = find_condition(document.conditions, ConditionType.READY)
    healthy = find_condition(document.conditions, ConditionType.HEALTHY)
    told = [ready.message] if ready is not None and ready.message else []
    if healthy is not None and healthy.status == "False" and healthy.message not in told:
        told.append(f"not healthy: {healthy.message}")
    if isinstance(document, SyncStatus) and document.rolled_back:
        told.append(f"rolled back {document.rolled_back}; stays there until that is lifted")
    if isinstance(document, SyncStatus) and (kept := document.edits_kept):
        told.append(f"{kept} local edit{' stays' if kept == 1 else 's stay'} there (`on_local_edit: keep`)")
    return "; ".join(told)


def _short_revision(document: AnyDocument) -> str:
    """What is applied; of an environment, the release of each unit."""
    if isinstance(document, EnvironmentStatus):
        tags = {unit: known.release.tag for unit, known in sorted(document.units.items())}
        return ", ".join(tags.values() if len(tags) == 1 else map(" ".join, tags.items()))
    if isinstance(document, Applied) and document.last_applied_revision:
        ref, commit = split_revision(document.last_applied_revision)
        return f"{ref}@{commit[:8]}"
    return ""


def print_nodes(rows: Sequence[Mapping[str, object]]) -> None:
    """The nodes of the spec, one a line."""
    table = make_table("NODE", "LABELS", "PAIRED", "FINGERPRINT")
    for row in rows:
        labels = row["labels"]
        shown = ", ".join(f"{k}={v}" for k, v in labels.items()) if isinstance(labels, dict) else ""
        pinned = "yes, unpinned" if row["trustOnFirstUse"] else "yes"
        paired = "revoked" if row["revoked"] else pinned if row["paired"] else "no"
        table.add_row(Text(str(row["node"])), Text(shown), paired, str(row["fingerprint"])[:16])
    print_table(table)


def print_document(document: object, output: str) -> None:
    """One document on standard output."""
    if output == "json":
        click.echo(json_text(document, indent=2))
    else:
        click.echo(yaml.safe_dump(json.loads(json.dumps(document, default=str)), sort_keys=False), nl=False)


def json_text(document: object, *, indent: int | None = None) -> str:
    """JSON in which what a terminal might act on is escaped; outside of strings there is nothing of it."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=str)
    return text if text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


_UNPRINTABLE = re.compile(r"[^\n -~]")


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]


def make_table(*columns: str) -> Table:
    """An empty table in the one form that all commands print."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """A table on standard output; where there is no terminal, one line a row, for programs that read lines.

    Where a terminal is so narrow that names would be broken, each row is a block of its own.
    """
    console = Console(file=sys.stdout, highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table)
    if not console.is_terminal:
        wide = Console(file=sys.stdout, highlight=False, width=needed.maximum)
        with wide.capture() as captured:
            wide.print(table)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
    elif needed.minimum > console.width:
        for row in zip(*(column.cells for column in table.columns), strict=True):
            console.print(_block(table, row))
    else:
        console.print(table)


_ANY_WIDTH = 1_000_000


def _block(table: Table, row: Sequence[RenderableType]) -> Table:
    """The cells of a row that hold something, one a line after its column's name."""
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for column, cell in zip(table.columns, row, strict=True):
        if str(cell):
            grid.add_row(column.header, cell)
    grid.add_row()
    return grid
