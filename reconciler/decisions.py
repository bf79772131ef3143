"""Operators' decisions: judged by everything as it is at this moment, and recorded. They are told by others.

What is recorded is done by the primary, which judges it again. The commands use these on an operator's
machine, the API in a running primary: the rules and the reasons of refusals are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.control import node_rollback as returns
from reconciler.control import requests
from reconciler.control.branch import Appended, ControlBranch, Records
from reconciler.control.records import Record, describe
from reconciler.control.situation import DecisionRefused, Situation, unknown
from reconciler.control.state import Scope, fold
from reconciler.git.mirror import Mirror
from reconciler.outlook import outlooks
from reconciler.pass_status import last_good_spec
from reconciler.release.versions import parse_version
from reconciler.repositories import Repositories
from reconciler.spec_source import SpecCache, read_spec
from reconciler.status.documents import SUMMARY_ID, Recorded, Summary

Make = Callable[[Situation], Sequence[Record]]
"""Judges a decision; pure, as it is called again when somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where decisions are made: everything read fresh, and the branch to write to."""

    repositories: Repositories
    control: ControlBranch
    records: Records
    situation: Situation
    seen: int

    def with_records(self, records: Sequence[Record]) -> Situation:
        """The situation after these records."""
        return replace(self.situation, control=fold(records))


@dataclass(frozen=True, slots=True)
class Decided:
    """What was recorded, and what there is to say of it."""

    appended: Appended
    told: tuple[str, ...] = ()


async def read_desk(
    repositories: Repositories,
    control: ControlBranch,
    mirror: Mirror,
    recorded: Recorded,
    *,
    branch: str,
    by: str,
    now: datetime,
    cache: SpecCache | None = None,
) -> Desk:
    """From the mirror of the spec's repository as it is, and the status files."""
    spec = await read_spec(mirror, branch, last_good=last_good_spec(recorded), cache=cache)
    known = recorded.summary or Summary(id=SUMMARY_ID)
    records = await control.read(seen=known.control, commit=known.control_commit)
    situation = Situation(
        spec=spec.spec,
        spec_commit=spec.commit,
        recorded=recorded,
        control=fold(records),
        by=by,
        now=now,
    )
    return Desk(repositories, control, records, situation, known.control)


async def record(desk: Desk, make: Make, *, told: Sequence[str] = ()) -> Decided:
    """Append what `make` gives. `told`: more to say of it."""
    appended = await desk.control.append(
        lambda known: make(desk.with_records(known)), author=desk.situation.by, seen=desk.seen
    )
    return Decided(appended, tuple(told))


async def promote(
    desk: Desk,
    source: str,
    target: str,
    *,
    unit: str | None,
    tag: str | None,
    drop_hotfix: bool,
    reason: str,
    confirmed: bool,
) -> Decided:
    def make(at: Situation) -> requests.Asked:
        return requests.promote(at, source, target, unit, tag=tag, drop_hotfix=drop_hotfix, reason=reason)

    return await ask(desk, make, confirmed=confirmed)


async def release(
    desk: Desk,
    environment: str,
    *,
    unit: str | None,
    bump: str,
    tag: str | None,
    reason: str,
) -> Decided:
    if tag is not None:
        return await _take_over(desk, environment, unit, tag, bump=bump, reason=reason)
    heads = await _heads(desk, environment, unit)
    return await ask(
        desk, lambda at: requests.release(at, environment, unit, heads, bump=bump, reason=reason)
    )


async def _take_over(
    desk: Desk, environment: str, unit: str | None, tag: str, *, bump: str, reason: str
) -> Decided:
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
    return await ask(
        desk, lambda at: requests.take_over(at, environment, name, tag, tags[tag], reason=reason)
    )


async def rollback(desk: Desk, environment: str, *, unit: str | None, to: str | None, reason: str) -> Decided:
    return await ask(desk, lambda at: requests.rollback(at, environment, unit, to, reason=reason))


async def node_rollback(
    desk: Desk, node: str, project: str, *, to: str | None, lift: bool, reason: str
) -> Decided:
    """Switch a node back to a release that it keeps, or with `lift` end that."""
    if lift and to is not None:
        raise DecisionRefused("to lift a rollback names no release", hint="leave out --to or --lift")

    def make(at: Situation) -> requests.Asked:
        if lift:
            return returns.node_unroll(at, node, project, reason=reason)
        return returns.node_rollback(at, node, project, to, reason=reason)

    told = [f"left out: {why}" for why in make(desk.situation).left_out]
    return await record(desk, lambda at: make(at).records, told=told)


async def approve(desk: Desk, environment: str, *, unit: str | None, tag: str | None, reason: str) -> Decided:
    return await ask(desk, lambda at: requests.approve(at, environment, unit, tag, reason=reason))


async def ask(desk: Desk, make: Callable[[Situation], requests.Asked], *, confirmed: bool = True) -> Decided:
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
    return await record(
        desk, lambda at: [each for each in make(at).records if _scope(each) not in refused], told=told
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
