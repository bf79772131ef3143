"""One spec of several revisions: the tip's, and for some units of some environments their releases'. Pure.

Every service and project comes from one revision only. Where two claim the same one, or the same
directory of a node, the release's is kept, as a merge must change nothing of what is released; what is
left out stays as it is and is not pruned.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

import msgspec

from reconciler import hashing
from reconciler.errors import Problem
from reconciler.identity import exclusive_place, project_id
from reconciler.spec.graph import circles
from reconciler.spec.load import Loaded
from reconciler.spec.model import Move, Project, Service, Spec

Place = tuple[str, str]
"""A unit and an environment."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """`frozen` has ids without a node, `services/production/web`, each with the reason."""

    spec: Spec
    head: Loaded
    problems: tuple[Problem, ...] = ()
    """Of the released revisions; the tip's own are not repeated."""
    frozen: Mapping[str, str] = field(default_factory=dict)
    by_environment: Mapping[str, tuple[Loaded, ...]] = field(default_factory=dict)
    present: frozenset[str] = frozenset()

    def is_frozen(self, resource: str) -> bool:
        """Whether a resource that is not in `spec` has to stay because something is wrong with it."""
        kind, *rest = resource.split("/")
        name = "/".join(resource.split("/")[:3])
        if kind not in ("services", "projects") or len(rest) < 2:
            return self.head.is_frozen(resource)
        if name in self.frozen:
            return True
        releases = self.by_environment.get(rest[0], ())
        if name in self.present and len(rest) == 2:
            return False
        if any(each.spec is None or each.is_frozen(resource) for each in releases):
            return True
        return self.head.is_frozen(resource)


def with_released(head: Loaded, composites: Mapping[Place, Loaded]) -> Mixed:
    """The tip's spec with the services and projects of each unit and environment given from its release.

    A composite is what `load_released` gives for the release that the unit runs there. `head.spec`
    is what the tip, or the last good revision before it, holds.
    """
    assert head.spec is not None
    own = set(head.problems)
    problems = {each: None for loaded in composites.values() for each in loaded.problems if each not in own}
    by_environment: dict[str, tuple[Loaded, ...]] = {}
    for (_, environment), loaded in sorted(composites.items()):
        by_environment[environment] = (*by_environment.get(environment, ()), loaded)
    if not composites:
        return Mixed(head.spec, head, present=frozenset(_ids(head.spec)))
    frozen: dict[str, str] = {}
    services, projects = _chosen(head.spec, composites, frozen)
    _leave_out_shared(services, projects, frozen)
    _leave_out_circles(services, projects, frozen)
    several = _names_used_twice(projects.values())
    spec = msgspec.structs.replace(
        head.spec,
        services=tuple(services[each] for each in sorted(services)),
        projects={
            f"{each.scope}/{each.id}" if each.id in several else each.id: each for each in projects.values()
        },
        hash="",
    )
    result = Mixed(
        spec, head, tuple(sorted(problems, key=str)), frozen, by_environment, frozenset(_ids(spec))
    )
    moves = tuple(_until_released(result, move) for move in spec.moved)
    spec = msgspec.structs.replace(spec, moved=moves)
    meaning = msgspec.json.encode(spec, order="deterministic").decode()
    return replace(result, spec=msgspec.structs.replace(spec, hash=hashing.digest(meaning)))


def _until_released(mixed: Mixed, move: Move) -> Move:
    """A rename is none yet where the release has the old name, or may have it."""
    kind, _, old = move.old.partition("/")
    waiting = [
        environment
        for environment in mixed.by_environment
        if (name := f"{kind}/{environment}/{old}") in mixed.present or mixed.is_frozen(name)
    ]
    return msgspec.structs.replace(move, not_in=tuple(waiting))


def _ids(spec: Spec) -> Iterator[str]:
    return chain((each.id for each in spec.services), map(project_id, spec.projects.values()))


def _place(resource: Service | Project) -> Place:
    return resource.unit or "", resource.environment or ""


def _id(resource: Service | Project) -> str:
    return resource.id if isinstance(resource, Service) else project_id(resource)


def _resources(spec: Spec) -> Iterator[Service | Project]:
    yield from spec.services
    yield from spec.projects.values()


def _chosen(
    head: Spec, composites: Mapping[Place, Loaded], frozen: dict[str, str]
) -> tuple[dict[str, Service], dict[str, Project]]:
    """By id, those of the releases first."""
    at_head = {_id(each): each for each in _resources(head)}
    claims: dict[str, dict[Place, Service | Project]] = {}
    elsewhere: dict[str, set[Place]] = {}
    """What a release has under another unit of that environment than its own."""
    known: dict[Place, set[str]] = {}
    for place, loaded in sorted(composites.items()):
        for each in _resources(loaded.spec) if loaded.spec is not None else ():
            if _place(each)[1] == place[1]:
                known.setdefault(place, set()).add(_id(each))
                if _place(each) == place:
                    claims.setdefault(_id(each), {})[place] = each
                else:
                    elsewhere.setdefault(_id(each), set()).add(_place(each))
    kept: dict[str, Service | Project] = {}
    for name, by_place in claims.items():
        wanted = _place(at_head[name]) if name in at_head else None
        kept[name] = by_place[wanted] if wanted in by_place else by_place[min(by_place)]
    for name, resource in at_head.items():
        if _place(resource) not in composites:
            kept.setdefault(name, resource)
    for name, places in elsewhere.items():
        if name not in kept and (name in at_head or any(name in known.get(each, ()) for each in places)):
            units = ", ".join(sorted(unit for unit, _ in places))
            frozen[name] = f"it goes from one unit to another; release {units} as well"
    return (
        {name: each for name, each in kept.items() if isinstance(each, Service)},
        {name: each for name, each in kept.items() if isinstance(each, Project)},
    )


def _leave_out_shared(
    services: dict[str, Service], projects: dict[str, Project], frozen: dict[str, str]
) -> None:
    """Of two that would write one directory, or are in one place, the first stays: the release's."""
    taken: dict[str, list[tuple[str, str]]] = {}
    for name, project in list(projects.items()):
        for target in project.sync.targets:
            path = target.target_path.rstrip("/") + "/"
            for other, owner in taken.get(target.node, ()):
                if owner != name and (path.startswith(other) or other.startswith(path)):
                    frozen[name] = f"shares {target.target_path} on {target.node} with {owner}, which stays"
            if name in frozen:
                break
        if name in frozen:
            del projects[name]
            continue
        for target in project.sync.targets:
            path = target.target_path.rstrip("/") + "/"
            taken.setdefault(target.node, []).append((path, name))
    owners: dict[tuple[str, str, str], str] = {}
    for name, service in list(services.items()):
        place = exclusive_place(service)
        if place is not None and (owner := owners.setdefault(place, name)) != name:
            frozen[name] = f"has the {place[0]} {place[1]} of {owner}, which stays"
            del services[name]


def _leave_out_circles(
    services: dict[str, Service], projects: dict[str, Project], frozen: dict[str, str]
) -> None:
    """Services of different revisions may wait for each other."""
    while True:
        graph = {name: each.depends_on for name, each in services.items()}
        graph |= {name: each.depends_on for name, each in projects.items()}
        found = circles(graph)
        if not found:
            return
        for circle in found:
            for name in circle:
                frozen[name] = f"the dependencies go in a circle: {' -> '.join((*circle, circle[0]))}"
                services.pop(name, None)
                projects.pop(name, None)


def _names_used_twice(projects: Iterable[Project]) -> set[str]:
    """A project that another environment has in another revision."""
    counts = Counter(each.id for each in projects)
    return {name for name, count in counts.items() if count > 1}
