"""Looking up what the release of each unit is decided from: branches, what changed on them, and descent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.errors import TrueupError, UnknownRevision
from reconciler.identity import project_id
from reconciler.observation import Setback
from reconciler.paths import CommitPaths, changed_paths
from reconciler.release.decide import Decision, decide, followed, soaked
from reconciler.release.facts import Common, Lineage, UnitFacts, spec_run_by
from reconciler.release.numbers import numbered
from reconciler.release.outcome import FAULTS
from reconciler.release.rules import runs_hotfix
from reconciler.repositories import Repositories
from reconciler.spec.model import Project, Service, Spec, Unit
from reconciler.status.conditions import ConditionType
from reconciler.status.documents import Recorded, Release, ServiceStatus, SyncStatus, UnitStatus
from reconciler.views import View, Views, for_each

Pair = tuple[str, str]
"""(unit, environment)"""


async def decide_releases(
    spec: Spec, views: Views, recorded: Recorded, common: Common, repositories: Repositories
) -> "Decided":
    """What becomes of every unit in every environment where something of it runs."""
    decisions: dict[Pair, Decision] = {}
    known: dict[Pair, UnitFacts] = {}

    async def one(unit: str, environment: str) -> None:
        facts = unit_facts(spec, views, recorded, common, unit, environment)
        view = views[facts.unit.repository]
        if isinstance(view, View):
            facts = await _with_changes(facts, spec, repositories)
            try:
                facts = replace(facts, lineage=await look_up_lineage(facts, common, view))
            except TrueupError as error:
                facts = replace(facts, tags=Setback.of(error))
        known[unit, environment] = facts
        decisions[unit, environment] = decide(facts, common)

    await for_each(one, pairs_of(spec, recorded))
    return Decided(with_numbers(decisions, known), known)


def with_numbers(decisions: Mapping[Pair, Decision], facts: Mapping[Pair, UnitFacts]) -> dict[Pair, Decision]:
    """The decisions of one pass, in order, no two of which take the same number."""
    planned = {pair: each.next for pair, each in decisions.items() if each.next is not None}
    numbers = numbered(planned, facts)
    return {pair: replace(decisions[pair], next=numbers.get(pair)) for pair in sorted(decisions)}


@dataclass(frozen=True, slots=True)
class Decided:
    """By unit and environment, in order: what is decided, and what it was decided from."""

    decisions: Mapping[Pair, Decision]
    facts: Mapping[Pair, UnitFacts]


def pairs_of(spec: Spec, recorded: Recorded) -> list[Pair]:
    """Units with environments: where the spec, or one that was released there, runs something of them."""
    wanted = {(service.unit, service.environment) for service in spec.services}
    wanted |= {
        (project.unit, project.environment)
        for project in spec.projects.values()
        if project.unit is not None and project.environment is not None
    }
    for name, environment in spec.environments.items():
        status = recorded.environments.get(f"environments/{name}")
        if environment.spec_from == "release" and status is not None:
            wanted |= {(unit, name) for unit in status.units if unit in spec.units}
    return sorted(wanted)


def unit_facts(
    spec: Spec, views: Views, recorded: Recorded, common: Common, unit_name: str, environment_name: str
) -> UnitFacts:
    """What is known of one unit in one environment without further looks."""
    unit, environment = spec.units[unit_name], spec.environments[environment_name]
    view = views[unit.repository]
    source_name = environment.release.promote_from
    source_spec = spec_run_by(spec, source_name, recorded) if source_name is not None else None
    if source_spec == "":
        source_spec = common.spec_commit
    status = recorded.environments.get(f"environments/{environment_name}")
    return UnitFacts(
        unit=unit,
        environment=environment,
        tags=view.tags if isinstance(view, View) else view,
        recorded=unit_status(recorded, environment_name, unit_name),
        seen=status.seen(unit_name) if status is not None else 0,
        source=unit_status(recorded, source_name, unit_name) if source_name is not None else None,
        source_spec=source_spec,
        source_fault=_fault(spec, recorded, unit_name, source_name)
        if source_name is not None and source_spec is not None and environment.spec_from == "release"
        else "",
        head=_head(unit, environment.release.from_branch, environment.release.cut, view),
        recorded_tags=frozenset(
            release.tag for each in recorded.environments for release in _releases(recorded, each, unit_name)
        ),
    )


def unit_status(recorded: Recorded, environment: str, unit: str) -> UnitStatus | None:
    status = recorded.environments.get(f"environments/{environment}")
    return status.units.get(unit) if status is not None else None


def _fault(spec: Spec, recorded: Recorded, unit: str, environment: str) -> str:
    """The first service or target of the unit there whose last step failed for a fault of its own."""
    services = [each.id for each in spec.services if (each.unit, each.environment) == (unit, environment)]
    projects = [
        each for each in spec.projects.values() if (each.unit, each.environment) == (unit, environment)
    ]
    prefixes = tuple(f"{project_id(each)}/" for each in projects)
    documents: list[ServiceStatus | SyncStatus] = [
        recorded.services[id] for id in services if id in recorded.services
    ]
    documents += [document for id, document in recorded.syncs.items() if id.startswith(prefixes)]
    for document in documents:
        for condition in document.conditions:
            is_failed = condition.type == ConditionType.READY and condition.status == "False"
            if is_failed and condition.reason in FAULTS:
                return f"{document.id}: {condition.reason}"
    return ""


def _releases(recorded: Recorded, id: str, unit: str) -> Iterable[Release]:
    known = recorded.environments[id].units.get(unit)
    return (known.release, *known.history) if known is not None else ()


def _head(unit: Unit, branch: str | None, cut: str, view: View | Setback) -> str | Setback | None:
    if branch is None or cut == "external" or isinstance(view, Setback):
        return None
    found = view.refs.heads.get(branch)
    if found is None:
        return Setback(
            "RevisionNotFound",
            f"{unit.repository} has no branch {branch!r} to cut releases of {unit.name} from; push it, or "
            "name another one in `release.from`",
        )
    return found


async def _with_changes(facts: UnitFacts, spec: Spec, repositories: Repositories) -> UnitFacts:
    """The facts with what changed between the recorded release and the tip of the branch."""
    if (
        not isinstance(facts.head, str)
        or facts.recorded is None
        or facts.recorded.release.commit == facts.head
    ):
        return facts
    url = spec.repositories[facts.unit.repository].url
    try:
        before = await repositories.commit_paths(url, facts.recorded.release.commit)
        after = await repositories.commit_paths(url, facts.head)
    except TrueupError as error:
        return replace(facts, head=Setback.of(error))
    unit, environment = facts.unit.name, facts.environment.name
    services = [each for each in spec.services if (each.unit, each.environment) == (unit, environment)]
    projects = [
        each for each in spec.projects.values() if (each.unit, each.environment) == (unit, environment)
    ]
    return replace(facts, changed=what_changed(before, after, services, projects))


def what_changed(
    before: CommitPaths,
    after: CommitPaths,
    services: Iterable[Service],
    projects: Iterable[Project],
) -> tuple[str, ...]:
    """The patterns of services and the paths of projects that have another content, in order."""
    differing = changed_paths(before, after)
    if not differing.matching(("**",)):
        return ()
    found: dict[str, None] = {}
    for service in services:
        for pattern in _patterns(service.paths or ("**",)):
            if pattern not in found and differing.matching(pattern.split("\0")):
                found[pattern] = None
        for pattern in service.shared_paths:
            if pattern not in found and differing.matching((pattern,)):
                found[pattern] = None
    for project in projects:
        path = "." if project.build is not None else project.path  # a build may use anything
        if differing.has_directory(path) and path not in found:
            found[path] = None
    return tuple(pattern.replace("\0", " ") for pattern in found)


def _patterns(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Each alone, but those with a negation, which mean something together only."""
    return ("\0".join(paths),) if any(path.startswith("!") for path in paths) else paths


async def look_up_lineage(facts: UnitFacts, common: Common, view: View) -> Lineage:
    """How the current release relates to what may come next.

    Raises GitUnavailable and GitFailed: what could not be looked at is not known to be no step back.
    """
    if facts.recorded is None:
        return Lineage()
    current = facts.recorded.release
    ancestors: dict[tuple[str, str], bool] = {}
    contained: dict[tuple[str, str], bool] = {}
    for commit in commits_that_may_come(facts, common) - {current.commit}:
        for pair in ((current.commit, commit), (commit, current.commit)):
            try:
                ancestors[pair] = await view.mirror.is_ancestor(*pair)
            except UnknownRevision:
                continue  # a commit that is not there any more: nothing is known to descend from it
        if runs_hotfix(facts.recorded) and not ancestors.get((current.commit, commit), False):
            try:
                contained[current.commit, commit] = await view.mirror.has_patches(current.commit, commit)
            except UnknownRevision:
                continue
    return Lineage(ancestors, contained)


def commits_that_may_come(facts: UnitFacts, common: Common) -> set[str]:
    """A superset of those that `decide` asks about."""
    found = {facts.head} if isinstance(facts.head, str) else set()
    request = common.control.requests.get((facts.environment.name, facts.unit.name))
    if request is not None and request.commit:
        found.add(request.commit)
    if isinstance(release := soaked(facts, common), Release):
        found.add(release.commit)
    if not isinstance(facts.tags, Setback) and (tag := followed(facts, common)) is not None:
        found.add(tag.commit)
    return found
