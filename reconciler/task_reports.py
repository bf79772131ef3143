"""What an agent's report says, as it goes into the journal and status files. Pure."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from agent.wire.forecast import Guard, Sums
from agent.wire.messages import TaskReport
from reconciler.logs import printable
from reconciler.status.conditions import bounded
from reconciler.status.kept_releases import details_of_releases

MAX_WARNINGS: Final = 50
"""Warnings of one target in its status file."""


def masked(report: TaskReport, mask: Callable[[str], str]) -> TaskReport:
    """A report without secrets in it, whatever form they have there: what an agent says and what its commands
    printed ends in status files, in the journal, in logs and in messages to people."""
    return msgspec.structs.replace(
        report,
        message=mask(report.message),
        warnings=tuple(mask(warning) for warning in report.warnings),
        after=tuple(
            msgspec.structs.replace(ran, name=mask(ran.name), output=mask(ran.output)) for ran in report.after
        ),
    )


def masked_sums(sums: Sums, mask: Callable[[str], str]) -> Sums:
    """What an agent foresees, likewise."""
    return msgspec.structs.replace(
        sums,
        guards=tuple(Guard(reason=mask(each.reason), message=mask(each.message)) for each in sums.guards),
        after=tuple(map(mask, sums.after)),
    )


def report_details(
    report: TaskReport, unsent: Sequence[str] = (), *, keeps_edits: bool = False
) -> dict[str, str | int | bool | list[str]]:
    """What of a report goes into the journal and the status file; `unsent` names what was not sent at all.

    `keeps_edits`: the project has local edits stay, which the agent knows and does not repeat.
    """
    kept = {"edits_kept": max(0, report.local_edits)} if keeps_edits else {}
    return {
        "tree": report.established.hex(),
        "files_written": report.files_written,
        "files_deleted": report.files_deleted,
        "foreign": report.foreign,
        "bytes_received": report.bytes_received,
        "bytes_reused": report.bytes_reused,
        "local_edits": report.local_edits,
        **kept,
        "warnings": [bounded(warning) for warning in (*unsent, *report.warnings)][:MAX_WARNINGS],
        "after": [f"{bounded(result.name)}: exit code {result.exit_code}" for result in report.after],
        **details_of_releases(report),
    }


def log_of(report: TaskReport) -> str:
    """What an agent told of a task, as the journal keeps it: its warnings, and what its commands printed."""
    lines = [f"warning: {bounded(warning)}" for warning in report.warnings[:MAX_WARNINGS]]
    for ran in report.after:
        lines.append(f"$ {bounded(ran.name)}")
        lines += [printable(line, keep="\t") for line in ran.output.splitlines()]
        lines.append("timed out" if ran.timed_out else f"exit code {ran.exit_code}")
    if report.state == "FAILED":
        lines.append(f"{bounded(report.reason)}: {bounded(report.message)}")
    return "\n".join(lines)
