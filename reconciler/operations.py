"""`trueup hold`, `promote` and their like: what an operator decides, recorded from this machine, and told.

They work from any machine that may read the spec's repository and push to its control branch.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import click
import msgspec

from reconciler import live
from reconciler.actor import whoami
from reconciler.console import print_document
from reconciler.control.branch import Appended, ControlBranch
from reconciler.control.records import describe
from reconciler.decisions import Decided, Desk, Make, read_desk, record
from reconciler.git.urls import shown
from reconciler.hotfix import Begun
from reconciler.primary import open_repositories, read_status, utc_now
from reconciler.settings import Settings


async def open_desk(settings: Settings) -> Desk:
    """Reads the spec, the status files and the control branch as they are now; no key is needed."""
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    recorded = await read_status(settings, repositories)
    mirror = repositories.mirror(url)
    return await read_desk(
        repositories,
        ControlBranch(mirror),
        mirror,
        recorded,
        branch=settings.spec_branch,
        by=whoami(),
        now=utc_now(),
    )


async def decide(settings: Settings, make: Make, output: str) -> None:
    """Judge, record and tell one decision that the spec and the status files alone speak about."""
    await tell(settings, lambda desk: record(desk, make), output)


async def tell(settings: Settings, run: Callable[[Desk], Awaitable[Decided]], output: str) -> None:
    """Record a decision, tell it, and ask a running primary for a pass."""
    await show(settings, await run(await open_desk(settings)), output)


async def show(settings: Settings, decided: Decided, output: str) -> None:
    asked = await live.ask_for_a_pass(settings)
    if output == "table":
        for line in [*_lines(decided.appended), *decided.told, asked]:
            click.echo(line)
    else:
        print_document(document(decided.appended), output)


async def show_hotfix(settings: Settings, made: Decided | Begun, output: str) -> None:
    if isinstance(made, Decided):
        await show(settings, made, output)
        return
    target, commit = made.target, made.target.release.commit
    if output != "table":
        begun = {"branch": target.branch, "commit": commit, "created": made.created, "reason": made.refusal}
        print_document({"version": 1, **begun, "commands": list(made.commands)}, output)
        return
    if made.refusal:
        click.echo(f"the branch {target.branch} could not be made from here: {made.refusal}")
    else:
        state = "begins at" if made.created else "is there already, at"
        click.echo(f"the branch {target.branch} {state} {commit[:12]}: {target.runs}")
    click.echo(f"next, in a clone of {shown(target.mirror.url)}:")
    for command in made.commands:
        click.echo(f"  {command}")


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
