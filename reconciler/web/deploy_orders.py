"""What a request to `/deploy` comes to: a record to be appended, or a tag that is taken anyway. Pure.

The rules are those of every release (`reconciler.release.rules`), and are asked again by the pass that acts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from semver import Version

from reconciler.control.records import Kind, Record
from reconciler.control.situation import DecisionRefused, Situation, unknown
from reconciler.control.state import fold
from reconciler.git.objects import Tag
from reconciler.observation import Setback
from reconciler.release import rules
from reconciler.release.decide import candidate_of
from reconciler.release.facts import Common, UnitFacts
from reconciler.release.rules import Refusal
from reconciler.release.versions import parse_version, read_trailers, releases_of
from reconciler.status.documents import Release, UnitStatus
from reconciler.web.deploy_bodies import Asked
from reconciler.web.refusals import RequestRefused

FOLLOW = "follow"
"""What a request is called that needs no record."""


class DeployRefused(RequestRefused):
    """A request that the rules do not let through, or that means nothing here."""

    reason = "DeployRefused"


@dataclass(frozen=True, slots=True)
class Order:
    """One unit that gets a release, or has it already."""

    unit: str
    tag: str
    commit: str
    kind: str
    record: Record | None = None
    """To be appended."""
    decision: int = 0
    """The number of a record that asks for the same and is not acted on yet."""


def units_meant(asked: Asked, at: Situation) -> list[str]:
    """The units that the request may mean. Raises DeployRefused for a name that nothing has."""
    try:
        at.environment(asked.environment)
        if not asked.service:
            return at.chosen(asked.environment, None)
        units = {each.name: each.unit for each in at.spec.services if each.environment == asked.environment}
        if asked.service not in units:
            raise unknown(f"service of {asked.environment}", asked.service, units)
    except DecisionRefused as refused:
        raise DeployRefused(404, str(refused)) from None
    return [units[asked.service]]


def unit_of(asked: Asked, known: Iterable[UnitFacts]) -> tuple[UnitFacts, Tag]:
    """The one unit that has the tag, and the tag. Raises DeployRefused."""
    found: list[tuple[UnitFacts, Tag]] = []
    setbacks: list[Setback] = []
    for facts in known:
        if isinstance(facts.tags, Setback):
            setbacks.append(facts.tags)
            continue
        tag = next((each for each in facts.tags if each.name == asked.tag), None)
        if tag is not None and parse_version(tag.name, facts.unit) is not None:
            found.append((facts, tag))
    if len(found) > 1:
        names = ", ".join(sorted(facts.unit.name for facts, _ in found))
        raise DeployRefused(409, f"{asked.tag} may be of {names}", hint="name one of its services")
    if not found and setbacks:
        raise DeployRefused(503, setbacks[0].message)
    if not found:
        raise DeployRefused(
            404,
            f"nothing that runs in {asked.environment} has a release tag {asked.tag}",
            hint="push the tag first, with the prefix of its unit",
        )
    return found[0]


def order_of(asked: Asked, at: Situation, facts: UnitFacts, tag: Tag, common: Common) -> Order:
    """What becomes of the request. Raises DeployRefused."""
    if asked.rollback:
        return _rollback(asked, at, facts)
    if facts.environment.release.promote_from is None:
        return _follow(facts, tag)
    return _promotion(asked, at, facts, tag, common)


def _rollback(asked: Asked, at: Situation, facts: UnitFacts) -> Order:
    where = f"{facts.unit.name} in {facts.environment.name}"
    known = facts.recorded
    if known is not None and known.release.tag == asked.tag:
        return Order(facts.unit.name, asked.tag, known.release.commit, FOLLOW)
    target = next((each for each in known.history if each.tag == asked.tag), None) if known else None
    if target is None:
        raise DeployRefused(409, f"{where} has no earlier release {asked.tag}")
    return _recorded(at, facts, "rollback", asked.tag, target.commit)


def _follow(facts: UnitFacts, tag: Tag) -> Order:
    """The environment takes the highest tag that is for it: nothing has to be decided, only looked at."""
    environment = facts.environment.name
    _require_meant(facts, tag)
    new = parse_version(tag.name, facts.unit)
    if new is not None and new.prerelease is not None:
        raise DeployRefused(409, f"{tag.name} is a pre-release, which no environment runs")
    runs = facts.recorded.release if facts.recorded is not None else None
    old = parse_version(runs.tag, facts.unit) if runs is not None else None
    if runs is not None and runs.tag != tag.name and new is not None and old is not None and new <= old:
        raise DeployRefused(
            409,
            f"{facts.unit.name} in {environment} runs {runs.tag} already, and goes forwards only",
            hint="ask for a rollback to go back",
        )
    return Order(facts.unit.name, tag.name, tag.commit, FOLLOW)


def _require_meant(facts: UnitFacts, tag: Tag) -> None:
    """A tag that the environment would never take is not waited for."""
    assert not isinstance(facts.tags, Setback)
    environment = facts.environment.name
    meant = read_trailers(tag).environment
    if meant is not None and meant != environment:
        raise DeployRefused(409, f"{tag.name} is a release for {meant}, not for {environment}")
    named = any(read_trailers(each).environment for _, each in releases_of(facts.tags, facts.unit))
    if meant is None and named:
        raise DeployRefused(
            409,
            f"{tag.name} names no environment, and other tags of {facts.unit.name} do",
            hint=f"make it with `git tag -a {tag.name} -m Release -m 'Environment: {environment}'`",
        )


def _promotion(asked: Asked, at: Situation, facts: UnitFacts, tag: Tag, common: Common) -> Order:
    """Of the tag of the environment that is promoted from, or of one at the same commit; or a hotfix."""
    known = facts.recorded
    if known is not None and known.release.commit == tag.commit and _names(known.release, tag.name):
        return Order(facts.unit.name, tag.name, tag.commit, FOLLOW)
    source = _source_release(facts, tag)
    if source is not None:
        order = _recorded(at, facts, "promote", source.tag, source.commit)
    elif known is not None and facts.lineage.contains(known.release.commit, tag.commit):
        order = _recorded(at, facts, "hotfix", tag.name, tag.commit)
    else:
        refused = rules.unproven(facts, tag.name, tag.commit)
        assert refused is not None  # nothing is known of it
        raise DeployRefused(409, refused.message)
    if order.record is None:
        return order
    if not asked.is_once:
        _require_forwards(facts, tag, common)
    candidate = candidate_of(facts, common, replace_number(order.record, common.control.last + 1))
    refused = candidate if isinstance(candidate, Refusal) else rules.refusal(facts, candidate)
    if refused is not None:
        raise DeployRefused(409, refused.message)
    return order


def _source_release(facts: UnitFacts, tag: Tag) -> Release | None:
    """The release in the environment that is promoted from: of that tag, or one that ran at its commit.

    One that failed there, or has not succeeded yet, counts too: under another name it is no hotfix.
    """
    named = rules.find_release(facts.source, tag.name, tag.commit)
    if named is not None or facts.source is None:
        return named
    found = [each for each in (facts.source.release, *facts.source.history) if each.commit == tag.commit]
    return next(filter(rules.proven, found), found[0] if found else None)


def _require_forwards(facts: UnitFacts, tag: Tag, common: Common) -> None:
    """What anybody could send again goes never past a hold, and never to what was there before."""
    how = "send requested_at and nonce with it, or use `trueup promote`"
    if (hold := rules.held(facts, common, None)) is not None:
        raise DeployRefused(409, f"{facts.environment.name} stays as it is: {hold.message}", hint=how)
    known = facts.recorded
    for release in (known.release, *known.history) if known is not None else ():
        if _names(release, tag.name) or not _is_above(tag.name, release, facts):
            raise DeployRefused(
                409,
                f"{tag.name} is not newer than what ran in {facts.environment.name} before, such as "
                f"{release.promoted_from or release.tag}",
                hint=how,
            )


def _is_above(name: str, release: Release, facts: UnitFacts) -> bool:
    """Whether a tag's number is higher than the one that a release was promoted from, or has itself."""
    new = parse_version(name, facts.unit)
    old = parse_version(release.promoted_from or release.tag, facts.unit)
    return new is None or old is None or _plain(new) > _plain(old)


def _plain(version: Version) -> Version:
    return version.finalize_version()


def _names(release: Release, tag: str) -> bool:
    return tag in (release.tag, release.promoted_from)


def _recorded(at: Situation, facts: UnitFacts, kind: Kind, tag: str, commit: str) -> Order:
    """The order with its record, unless one that asks for the same waits already."""
    environment, unit = facts.environment.name, facts.unit.name
    pending = at.control.pending(environment, unit, facts.seen)
    if pending is not None and (pending.kind, pending.tag, pending.commit) == (kind, tag, commit):
        return Order(unit, tag, commit, kind, decision=pending.number)
    source = (facts.environment.release.promote_from or "") if kind == "promote" else ""
    record = at.decide(kind, environment=environment, unit=unit, tag=tag, commit=commit, source=source)
    return Order(unit, tag, commit, kind, record)


def replace_number(record: Record, number: int) -> Record:
    """The record as it will be once it is appended."""
    return msgspec.structs.replace(record, number=number)


def with_provisional(common: Common, records: Sequence[Record], facts: UnitFacts, tag: Tag) -> Common:
    """As if the tag had been asked for: what is looked up then is all that the rules may need of it."""
    probe = Record(
        number=len(records) + 1,
        kind="hotfix",
        by="",
        at=common.now,
        environment=facts.environment.name,
        unit=facts.unit.name,
        tag=tag.name,
        commit=tag.commit,
    )
    return replace(common, control=fold([*records, probe]))


# --- what became of it -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """`pending`, `succeeded`, `failed` or `refused`, and the tag that runs there because of the request."""

    state: str
    message: str
    release: str = ""


def progress_of(
    kind: str, tag: str, commit: str, decision: int, status: UnitStatus | None, waiting: Mapping[str, str]
) -> Progress:
    """From the status file of the environment. `waiting`: by tag, and by commit, why it is not taken yet."""
    releases = (status.release, *status.history) if status is not None else ()
    mine = next(
        (
            each
            for each in releases
            if each.commit == commit and (each.decision >= decision if decision else _names(each, tag))
        ),
        None,
    )
    if mine is not None:
        return _outcome(mine)
    if status is not None and decision and status.decision >= decision:
        if status.decision == decision and status.refused:
            return Progress("refused", status.refused)
        return Progress("refused", f"something newer was asked for, and {status.release.tag} runs")
    if kind == FOLLOW and status is not None and _went_past(status.release, tag):
        return Progress("refused", f"a newer release, {status.release.tag}, was taken instead")
    return Progress("pending", waiting.get(tag) or waiting.get(commit) or "the next pass takes it")


def _outcome(release: Release) -> Progress:
    match release.outcome:
        case "succeeded":
            return Progress("succeeded", f"{release.tag} runs", release.tag)
        case "failed":
            return Progress("failed", f"{release.tag} failed: {release.reason}", release.tag)
    return Progress("pending", f"{release.tag} is being deployed", release.tag)


def _went_past(release: Release, tag: str) -> bool:
    def version(name: str) -> Version | None:
        try:
            return Version.parse(name.rpartition("/")[2].removeprefix("v"))
        except ValueError:
            return None

    new, old = version(release.tag), version(tag)
    return new is not None and old is not None and new > old
