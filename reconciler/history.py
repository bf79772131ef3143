"""`trueup history`: the releases of each environment as the status files have them, newest first."""

from typing import Any

import click
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.control.situation import unknown
from reconciler.primary import open_repositories, read_status
from reconciler.release.past import Past, past_of
from reconciler.settings import Settings
from reconciler.status.documents import Recorded


async def print_history(settings: Settings, environment: str | None, output: str) -> None:
    recorded = await read_status(settings, open_repositories(settings))
    found = history_of(recorded, environment)
    if output != "table":
        print_document({"version": 1, "releases": [_row(each) for each in found]}, output)
        return
    if not found:
        click.echo("no releases yet: no pass has recorded any")
        return
    table = make_table("WHEN", "ENVIRONMENT", "UNIT", "TAG", "KIND", "COMMITS", "TRIGGERED BY", "OUTCOME")
    for each in found:
        row, outcome = _row(each), str(each.release.outcome or "not known yet")
        if each.release.reason:
            outcome += f": {each.release.reason}"
        values = (row["at"], row["environment"], row["unit"], row["tag"], row["kind"], each.commits(12))
        table.add_row(*(Text(value) for value in (*values, row["triggeredBy"], outcome)))
    print_table(table)


def history_of(recorded: Recorded, environment: str | None) -> list[Past]:
    """Of one environment or all, one after the other, the newest first. Raises UnknownName."""
    names = {id.partition("/")[2] for id in recorded.environments}
    if environment is not None and environment not in names:
        raise unknown("environment with releases", environment, sorted(names))
    return sorted(past_of(recorded, environment or ""), key=lambda past: past.environment)


def _row(past: Past) -> dict[str, Any]:
    release = past.release
    return {
        "at": f"{release.recorded_at:%Y-%m-%dT%H:%M:%SZ}",
        "environment": past.environment,
        "unit": past.unit,
        "tag": release.tag,
        "kind": release.kind,
        "current": past.current,
        "from": release.previous,
        "to": release.commit,
        "specRevision": release.spec_revision or "",
        "promotedFrom": release.promoted_from,
        "triggeredBy": release.triggered_by,
        "decision": release.decision,
        "outcome": release.outcome,
        "endedAt": f"{release.ended_at:%Y-%m-%dT%H:%M:%SZ}" if release.ended_at is not None else "",
        "reason": release.reason,
    }
