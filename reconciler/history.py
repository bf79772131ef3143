"""`trueup history`: the releases of each environment as the status files have them, newest first."""

from typing import Any

import click
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.control.situation import unknown
from reconciler.primary import open_repositories, read_status
from reconciler.settings import Settings
from reconciler.status.documents import Recorded, Release


async def print_history(settings: Settings, environment: str | None, output: str) -> None:
    recorded = await read_status(settings, open_repositories(settings))
    rows = history_of(recorded, environment)
    if output != "table":
        print_document({"version": 1, "releases": rows}, output)
        return
    if not rows:
        click.echo("no releases yet: no pass has recorded any")
        return
    table = make_table("WHEN", "ENVIRONMENT", "UNIT", "TAG", "KIND", "COMMITS", "TRIGGERED BY", "OUTCOME")
    for row in rows:
        outcome = row["outcome"] or "not known yet"
        if row["reason"]:
            outcome += f": {row['reason']}"
        values = (row["at"], row["environment"], row["unit"], row["tag"], row["kind"], _range(row))
        table.add_row(*(Text(value) for value in (*values, row["triggeredBy"], outcome)))
    print_table(table)


def history_of(recorded: Recorded, environment: str | None) -> list[dict[str, Any]]:
    """One row a release, of one environment or all, the newest first."""
    names = sorted(id.removeprefix("environments/") for id in recorded.environments)
    if environment is not None:
        if environment not in names:
            raise unknown("environment with releases", environment, names)
        names = [environment]
    return [
        _row(name, unit, release, current=release is known.release)
        for name in names
        for release, unit, known in sorted(
            (
                (release, unit, known)
                for unit, known in recorded.environments[f"environments/{name}"].units.items()
                for release in (known.release, *known.history)
            ),
            key=lambda each: each[0].recorded_at,
            reverse=True,
        )
    ]


def _row(environment: str, unit: str, release: Release, *, current: bool) -> dict[str, Any]:
    return {
        "at": f"{release.recorded_at:%Y-%m-%dT%H:%M:%SZ}",
        "environment": environment,
        "unit": unit,
        "tag": release.tag,
        "kind": release.kind,
        "current": current,
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


def _range(row: dict[str, Any]) -> str:
    """The commits between the one before it and its own, as git takes it; one where it is the same."""
    before, own = str(row["from"])[:12], str(row["to"])[:12]
    return own if before in ("", own) else f"{before}..{own}"
