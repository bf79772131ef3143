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
from reconciler.control import requests
from reconciler.control.branch import Appended, ControlBranch, Records
from reconciler.control.records import Record, describe
from reconciler.control.situation import DecisionRefused, Situation, unknown
from reconciler.control.state import Scope, fold
from reconciler.errors import TrueupError
from reconciler.outlook import outlooks
from reconciler.pass_status import last_good_spec
from reconciler.primary import open_repositories, read_status, utc_now
from reconciler.release.versions import parse_version
from reconciler.repositories import Repositories
from reconciler.settings import Settings
from reconciler.spec_source import read_spec
from reconciler.status.documents import SUMMARY_ID, Summary

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
    known = recorded.summary or Summary(id=SUMMARY_ID)
    seen = known.control
    records = await control.read(seen=seen, commit=known.control_commit)
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
    """Judge, record and tell one decision that the spec and the status files alone speak about."""
    await record(await open_desk(settings), make, output)


async def record(desk: Desk, make: Make, output: str, *, told: Sequence[str] = ()) -> None:
    """Append what `make` gives, tell it, and ask a running primary for a pass. `told`: more to say of it."""
    appended = await desk.control.append(
        lambda known: make(desk.with_records(known)), author=desk.situation.by, seen=desk.seen
    )
    asked = await _ask_for_a_pass(desk.settings)
    if output == "table":
        for line in [*_lines(appended), *told, asked]:
            click.echo(line)
    else:
        print_document(document(appended), output)


async def promote(
    settings: Settings,
    source: str,
    target: str,
    output: str,
    *,
    unit: str | None,
    tag: str | None,
    drop_hotfix: bool,
    reason: str,
    confirmed: bool,
) -> None:
    def make(at: Situation) -> requests.Asked:
        return requests.promote(at, source, target, unit, tag=tag, drop_hotfix=drop_hotfix, reason=reason)

    desk = await open_desk(settings)
    await ask(desk, make, output, confirmed=confirmed)


async def release(
    settings: Settings,
    environment: str,
    output: str,
    *,
    unit: str | None,
    bump: str,
    tag: str | None,
    reason: str,
) -> None:
    desk = await open_desk(settings)
    if tag is not None:
        await _take_over(desk, environment, unit, tag, output, bump=bump, reason=reason)
        return
    heads = await _heads(desk, environment, unit)
    await ask(
        desk, lambda at: requests.release(at, environment, unit, heads, bump=bump, reason=reason), output
    )


async def _take_over(
    desk: Desk, environment: str, unit: str | None, tag: str, output: str, *, bump: str, reason: str
) -> None:
    """A tag that is there as the first release of an environment."""
    if bump:
        raise DecisionRefused("a tag that is there has its number", hint="leave out --bump or --tag")
    at = desk.situation
    units = [at.spec.units[name] for name in at.chosen(environment, unit)]
    fitting = [each.name for each in units if parse_version(tag, each) is not None]
    name = fitting[0] if len(fitting) == 1 else at.only(environment, unit)
    repository = at.spec.repositories[at.spec.units[name].repository]
    tags = (await desk.repositories.refresh(repository.url)).tags
    if tag not in tags:
        raise unknown(f"tag in {repository.name}", tag, tags)
    await ask(
        desk,
        lambda at: requests.take_over(at, environment, name, tag, tags[tag], reason=reason),
        output,
    )


async def rollback(
    settings: Settings, environment: str, output: str, *, unit: str | None, to: str | None, reason: str
) -> None:
    desk = await open_desk(settings)
    await ask(desk, lambda at: requests.rollback(at, environment, unit, to, reason=reason), output)


async def approve(
    settings: Settings, environment: str, output: str, *, unit: str | None, tag: str | None, reason: str
) -> None:
    desk = await open_desk(settings)
    await ask(desk, lambda at: requests.approve(at, environment, unit, tag, reason=reason), output)


async def ask(
    desk: Desk, make: Callable[[Situation], requests.Asked], output: str, *, confirmed: bool = True
) -> None:
    """Judge and record what asks for another release; what is not confirmed is told and refused."""
    asked = make(desk.situation)
    expected = await outlooks(desk.situation, desk.repositories, desk.records, asked.records)
    pairs = list(zip(asked.records, expected, strict=True))
    refused = {_scope(each): outlook.refused for each, outlook in pairs if outlook.refused}
    if len(refused) == len(pairs):
        raise DecisionRefused("; ".join(dict.fromkeys([*refused.values(), *asked.left_out])))
    coming = {_scope(each): outlook.coming for each, outlook in pairs if not outlook.refused}
    if not confirmed:
        what = "; ".join(describe(each) for each, outlook in pairs if not outlook.refused)
        then = "; ".join(dict.fromkeys(coming.values()))
        raise DecisionRefused(f"this would {what} ({then})", hint="say --confirm deploy to have it done")
    told = [f"{unit}: {text}" for (_, unit), text in coming.items()]
    told += [f"left out: {why}" for why in (*refused.values(), *asked.left_out)]
    await record(
        desk,
        lambda at: [each for each in make(at).records if _scope(each) not in refused],
        output,
        told=told,
    )


def _scope(record: Record) -> Scope:
    return record.environment, record.unit


async def _heads(desk: Desk, environment: str, unit: str | None) -> dict[str, str | DecisionRefused]:
    """By unit, the tip of the branch that its releases are made from; nothing where they are promoted."""
    at, found = desk.situation, {}
    policy = at.environment(environment).release
    for name in at.chosen(environment, unit) if policy.promote_from is None else ():
        repository = at.spec.repositories[at.spec.units[name].repository]
        branch = policy.from_branch or repository.branch
        head = (await desk.repositories.refresh(repository.url)).heads.get(branch)
        found[name] = head or DecisionRefused(
            f"{repository.name} has no branch {branch!r} to release {name} from", hint="push it"
        )
    return found


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
