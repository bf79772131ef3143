"""Which resources a request concerns, and the part of a plan that is applied for it. Pure.

A pass looks at everything and plans everything, whatever it was asked for. What is out of scope is left as
it is recorded: it is neither applied nor told as in order, and the pass at the next interval sees to it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from msgspec import structs

from reconciler.desired_model import Desired, DesiredService, DesiredSync
from reconciler.identity import project_id
from reconciler.pass_requests import PassRequest
from reconciler.plan import Action, Plan, Step, release_id_of
from reconciler.secret_uses import Purpose, uses_of
from reconciler.spec.model import Spec

REPOSITORIES = "repositories/"
SECRETS = "secrets/"
NODES = "nodes/"
ENVIRONMENTS = "environments/"


@dataclass(frozen=True, slots=True)
class Scope:
    """Ids of resources, the beginnings of such ids, and environments. None of them: `everything`."""

    everything: bool = True
    beginnings: frozenset[str] = frozenset()
    environments: frozenset[str] = frozenset()

    def covers(self, resource: str) -> bool:
        if self.everything:
            return True
        parts = resource.split("/")
        if len(parts) > 2 and parts[1] in self.environments:
            return True
        return any("/".join(parts[:length]) in self.beginnings for length in range(1, len(parts) + 1))


def scope_of(request: PassRequest, spec: Spec, desired: Desired) -> Scope:
    """What a request concerns, now that it is known what there is."""
    if request.everything:
        return Scope()
    named = request.resources | request.forced
    environments = request.environments | {
        name.removeprefix(ENVIRONMENTS) for name in named if name.startswith(ENVIRONMENTS)
    }
    beginnings = set(named) | meant(named, desired)
    if repositories := _after(REPOSITORIES, named):
        beginnings |= _of_repositories(repositories, spec)
        named |= {f"{SECRETS}{name}" for name in _sources_in(repositories, spec)}
    if sources := _after(SECRETS, named):
        beginnings |= _consumers(sources, spec)
    if nodes := _after(NODES, named):
        beginnings |= {sync.id for sync in desired.syncs().values() if sync.target.node in nodes}
    return Scope(False, frozenset(beginnings), frozenset(environments))


def meant(named: Collection[str], desired: Desired) -> set[str]:
    """The ids of the resources that some names mean: an id, the beginning of some, or `KIND/NAME`."""
    if not named:
        return set()
    found: set[str] = set()
    for resource in desired.resources:
        parts = resource.id.split("/")
        names = {"/".join(parts[:length]) for length in range(2, len(parts) + 1)}
        if isinstance(resource, DesiredService | DesiredSync):
            names.discard("/".join(parts[:2]))  # the kind and the environment are no name
            names.add(f"{parts[0]}/{parts[2]}")
        if not names.isdisjoint(named):
            found.add(resource.id)
    return found


def within(plan: Plan, scope: Scope, desired: Desired) -> tuple[Plan, frozenset[str]]:
    """The part of a plan that is applied, with what that depends on; and the resources it leaves as they are.

    A service that works with the files of a project goes along with a sync of them.
    """
    if scope.everything:
        return plan, frozenset()
    return only(plan, {step.resource for step in plan.steps if scope.covers(step.resource)}, desired)


def only(plan: Plan, wanted: Collection[str], desired: Desired) -> tuple[Plan, frozenset[str]]:
    """The same for the resources that are `wanted`."""
    steps = {step.resource: step for step in plan.steps}
    followers = _followers(desired, steps)
    kept: set[str] = set()
    waiting = [id for id in wanted if id in steps]
    while waiting:
        id = waiting.pop()
        if id not in kept and id in steps:
            kept.add(id)
            waiting += (*steps[id].depends_on, *followers.get(id, ()))
    left = steps.keys() - kept
    return (
        replace(plan, steps=tuple(step for step in plan.steps if step.resource in kept)),
        left_alone(desired, left),
    )


def left_alone(desired: Desired, left: Collection[str]) -> frozenset[str]:
    """All resources of which nothing can be said while these steps are not done: theirs, and those of units
    that do not get their release."""
    releases = {id for id in left if id.startswith("releases/")}
    if not releases:
        return frozenset(left)
    return frozenset(left) | {
        resource.id for resource in desired.resources if release_id_of(resource) in releases
    }


def _followers(desired: Desired, steps: Mapping[str, Step]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if not any(step.action is Action.SYNC for step in steps.values()):
        return found
    for resource in desired.resources:
        if isinstance(resource, DesiredService):
            for sync in resource.follows:
                found.setdefault(sync, []).append(resource.id)
    return found


def _after(prefix: str, named: Iterable[str]) -> set[str]:
    return {name.removeprefix(prefix) for name in named if name.startswith(prefix)}


def _of_repositories(names: Collection[str], spec: Spec) -> set[str]:
    found = {service.id for service in spec.services if service.repository in names}
    found |= {project_id(each) for each in spec.projects.values() if each.repository in names}
    units = [unit.name for unit in spec.units.values() if unit.repository in names]
    return found | {f"releases/{environment}/{unit}" for environment in spec.environments for unit in units}


def _sources_in(repositories: Collection[str], spec: Spec) -> set[str]:
    """Secret sources whose file is in one of these repositories."""
    return {
        name
        for name, source in spec.secret_sources.items()
        if structs.asdict(source.settings).get("repository") in repositories
    }


def _consumers(sources: Collection[str], spec: Spec) -> set[str]:
    """Who gets values of these sources, also through others that fall back to them or log in with them."""
    uses = list(uses_of(spec))
    known = set(sources)
    while (
        more := {
            use.resource.removeprefix(SECRETS)
            for use in uses
            if use.source in known and use.purpose in (Purpose.CREDENTIAL, Purpose.FALLBACK)
        }
        - known
    ):
        known |= more
    return {use.resource for use in uses if use.source in known and not use.resource.startswith(SECRETS)}
