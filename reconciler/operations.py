"""`trueup hold`, `promote` and their like: what an operator decides, judged, recorded and told.

They work from any machine that may read the spec's repository and push to its control branch. What is
recorded is done by the primary, which judges it again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import msgspec

from reconciler import live
from reconciler.actor import whoami
from reconciler.console import print_document
from reconciler.control.branch import Appended, ControlBranch, Records
from reconciler.control.records import Record, describe
from reconciler.control.situation import Situation
from reconciler.control.state import fold
from reconciler.errors import TrueupError
from reconciler.pass_status import last_good_spec
from reconciler.primary import open_repositories, read_status, utc_now
from reconciler.repositories import Repositories
from reconciler.settings import Settings
from reconciler.spec_source import read_spec

Make = Callable[[Situation], Sequence[Record]]
"""Judges a decision; pure, as it is called again when somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where decisions are made: everything read fresh, and the branch to write to."""

    settings: Settings
    repositories: Repositories
    control: ControlBranch
    records: Records
    situation: Situation
    seen: int

    def with_records(self, records: Sequence[Record]) -> Situation:
        """The situation after these records."""
        return replace(self.situation, control=fold(records))


async def open_desk(settings: Settings) -> Desk:
    """Reads the spec, the status files and the control branch as they are now; no key is needed."""
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    recorded = await read_status(settings, repositories)
    mirror = repositories.mirror(url)
    spec = await read_spec(mirror, settings.spec_branch, last_good=last_good_spec(recorded))
    control = ControlBranch(mirror)
    seen = recorded.summary.control if recorded.summary is not None else 0
    records = await control.read(seen=seen)
    situation = Situation(
        spec=spec.spec,
        spec_commit=spec.commit,
        recorded=recorded,
        control=fold(records),
        by=whoami(),
        now=utc_now(),
    )
    return Desk(settings, repositories, control, records, situation, seen)


async def decide(settings: Settings, make: Make, output: str) -> None:
    """Judge, record and tell one decision that only the spec and the status files speak about."""
    desk = await open_desk(settings)
    await record(desk, make, output)


async def record(desk: Desk, make: Make, output: str, *, told: Sequence[str] = ()) -> None:
    """Append what `make` gives, tell it, and ask a running primary for a pass. `told`: what comes of it."""
    appended = await desk.control.append(
        lambda known: make(desk.with_records(known)), author=desk.situation.by, seen=desk.seen
    )
    asked = await _ask_for_a_pass(desk.settings)
    if output == "table":
        for line in [*_lines(appended), *told, asked]:
            click.echo(line)
    else:
        print_document(document(appended), output)


def document(appended: Appended) -> dict[str, Any]:
    """What was recorded, for programs."""
    return {
        "version": 1,
        "commit": appended.commit,
        "records": [msgspec.to_builtins(record) for record in appended.records],
    }


def _lines(appended: Appended) -> list[str]:
    return [
        f"recorded {record.number}: {describe(record)} ({appended.commit[:12]})"
        for record in appended.records
    ]


async def _ask_for_a_pass(settings: Settings) -> str:
    """Says who acts on it, and when."""
    try:
        answer = await live.request_if_running(settings, "POST", "/api/reconcile")
    except TrueupError as error:
        return f"the running primary could not be asked for a pass and acts on it with its next one: {error}"
    if answer is not None:
        return "the running primary was asked for a pass"
    return "the next pass acts on it: `trueup reconcile`, or a running `trueup serve` by itself"
