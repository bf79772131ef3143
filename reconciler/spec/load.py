"""From the bytes of a spec's YAML files to the model, with every problem found. Pure: no I/O.

The caller reads `trueup.yaml` at some commit, asks `included_paths` which further files of that tree
belong to it, and hands all of them to `load`. The stages: read and combine the files; judge them by the
schema; build each resource that has no problem so far, which checks what a schema cannot say; leave out
what has a problem or refers to something that has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from reconciler import hashing
from reconciler.errors import Problem, SpecInvalid
from reconciler.spec.base_parts import (
    build_environments,
    build_limits,
    build_moved,
    build_nodes,
    build_notifications,
    build_repositories,
    build_shared_paths,
    units_of,
)
from reconciler.spec.combine import combine, include_patterns, matching
from reconciler.spec.document import Map
from reconciler.spec.findings import Findings
from reconciler.spec.graph import circles
from reconciler.spec.model import Project, Service, Spec
from reconciler.spec.project_parts import build_projects
from reconciler.spec.refused import check_references
from reconciler.spec.schema import spec_schema, violations
from reconciler.spec.secret_parts import Uses, build_sources, build_targets
from reconciler.spec.service_parts import UnitFinder, build_services
from reconciler.spec.yaml_reader import MAX_BYTES, Budget, read_yaml

SPEC_FILE = "trueup.yaml"

_SECTION_OF_KIND = {"secrets": "secret_sources", "targets": "secret_targets"}
"""Where the status branch's kinds have other names than the spec's sections."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a spec's files hold.

    `spec` has every valid resource, or is None where the document as a whole is unusable (a problem
    without a resource). `frozen` names the resources that are left out of `spec`, as `services/web`
    (section and name, no environment), each with the reason: its own problem, or that of one it refers
    to. They stay at their last good state; what they left behind must not be pruned.
    """

    spec: Spec | None
    problems: tuple[Problem, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)

    def is_frozen(self, resource: str) -> bool:
        """Whether a resource id, in the spec's form or in the status branch's, is left out of `spec`."""
        kind, *rest = resource.split("/")
        names = [f"{_SECTION_OF_KIND.get(kind, kind)}/{rest[0]}" if rest else resource]
        if kind == "services" and len(rest) == 2:
            names = [f"environments/{rest[0]}", f"services/{rest[1]}"]
        elif kind == "projects" and len(rest) >= 2:
            names = [f"environments/{rest[0]}", f"projects/{rest[1]}"]
            names += [f"nodes/{rest[2]}"] if len(rest) > 2 else []
        return any(name in self.frozen for name in names)


def included_paths(root_bytes: bytes, all_paths: Iterable[str], *, root: str = SPEC_FILE) -> tuple[str, ...]:
    """The paths of `all_paths` that the root file's `include` names, sorted; none where it is broken."""
    if len(root_bytes) > MAX_BYTES:
        return ()
    read = read_yaml(root, root_bytes, Budget())
    if isinstance(read, Problem) or not isinstance(read.data, Map):
        return ()
    return matching(include_patterns(read.data), all_paths, root)


def load(files: Mapping[str, bytes], *, root: str = SPEC_FILE) -> Loaded:
    """Read a spec from its files, given by their paths in the repository; never raises for bad input."""
    combined = combine(files, root)
    if combined.data is None:
        return Loaded(None, tuple(sorted(combined.problems)))
    return judged(Findings(combined.data, root, combined.problems))


def judged(findings: Findings) -> Loaded:
    """The spec that a combined document holds, with what is wrong with it."""
    for found in violations(findings.data, spec_schema()):
        findings.report(found.path, found.message, of_key=found.of_key)
    check_references(findings)
    spec = _build(findings)
    return Loaded(spec if findings.is_usable else None, findings.problems, findings.frozen())


def load_or_raise(files: Mapping[str, bytes], *, root: str = SPEC_FILE) -> Spec:
    """The spec, wholly valid. Raises SpecInvalid with every problem otherwise."""
    loaded = load(files, root=root)
    if loaded.spec is None or loaded.problems:
        raise SpecInvalid(list(loaded.problems))
    return loaded.spec


def _build(findings: Findings) -> Spec | None:
    """The spec without what is frozen; None where the document's own parts are not of the right form."""
    _check_spelling(findings)
    usable = findings.is_usable
    repositories = build_repositories(findings)
    shared_paths = build_shared_paths(findings)
    environments = build_environments(findings)
    sources = build_sources(findings)
    targets = build_targets(findings, sources)
    nodes = build_nodes(findings)
    uses = Uses(findings, sources)
    projects = build_projects(findings, nodes, UnitFinder(repositories), uses)
    services = build_services(findings, repositories, shared_paths, uses)
    uses.check_fallbacks()
    _check_circles(findings, services, projects)
    if not usable:
        return None
    moved = build_moved(findings)
    notifications = build_notifications(findings, sources)
    limits = build_limits(findings)
    frozen = findings.frozen()
    kept = {name: each for name, each in repositories.items() if f"repositories/{name}" not in frozen}
    spec = Spec(
        version=1,
        limits=limits,
        repositories=kept,
        units=units_of(kept),
        environments={
            name: each for name, each in environments.items() if f"environments/{name}" not in frozen
        },
        secret_sources={
            name: each for name, each in sources.items() if f"secret_sources/{name}" not in frozen
        },
        secret_targets={
            name: each for name, each in targets.items() if f"secret_targets/{name}" not in frozen
        },
        services=tuple(
            each
            for each in services
            if f"services/{each.name}" not in frozen and f"environments/{each.environment}" not in frozen
        ),
        nodes={name: each for name, each in nodes.items() if f"nodes/{name}" not in frozen},
        projects={name: each for name, each in projects.items() if f"projects/{name}" not in frozen},
        moved=moved,
        notifications=notifications,
    )
    # One text and not nested data: canonical JSON in Python takes a quarter of the whole load.
    meaning = msgspec.json.encode(spec, order="deterministic").decode()
    return msgspec.structs.replace(spec, hash=hashing.digest(meaning))


def _check_spelling(findings: Findings) -> None:
    """Names end up in files and refs, so two must not differ in case alone."""
    for section, names in findings.all_names():
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(name.casefold(), name)
            if first != name:
                findings.report((section, name), f"differs from `{first}` only in case; rename one")


def _check_circles(findings: Findings, services: Iterable[Service], projects: Mapping[str, Project]) -> None:
    """Dependencies among services and projects; the same circle in several environments is told once."""
    graph = {each.id: each.depends_on for each in services}
    graph |= {f"projects/{each.scope}/{each.id}": each.depends_on for each in projects.values()}
    told: dict[tuple[str, ...], list[str]] = {}
    for circle in circles(graph):
        names = tuple(f"{kind}/{name}" for kind, _, name in (each.split("/") for each in circle))
        told.setdefault(names, []).append(circle[0].split("/")[1])
    for names, environments in told.items():
        section, _, name = names[0].partition("/")
        way = " -> ".join(_as_written(each) for each in [*names, names[0]])
        findings.report(
            (section, name, "depends_on"),
            f"the dependencies go in a circle in {', '.join(environments)}: {way}; remove one of them",
        )


def _as_written(resource: str) -> str:
    return resource.removeprefix("services/").replace("projects/", "project/", 1)
