"""Services: one model for each environment that a service runs in, overrides applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.identity import exclusive_place
from reconciler.paths import compiled
from reconciler.spec.addresses import port_fault, url_fault
from reconciler.spec.convert import converted
from reconciler.spec.document import Map, Path, Seq, shown
from reconciler.spec.findings import Findings
from reconciler.spec.model import AgentDeploy, DokployDeploy, Health, Repository, Service, Unit
from reconciler.spec.overlay import PROBES, overlay, without
from reconciler.spec.schema import definition, suggest, violations
from reconciler.spec.secret_parts import Uses


@dataclass(frozen=True, slots=True)
class Variant:
    """A service as one environment has it, and where each part of that stands in the document."""

    name: str
    environment: str
    merged: Map
    base: Map
    over: Map | None

    def locate(self, *sub: str | int) -> Path:
        """The document's path of a part: in the override where that says it, else in the service."""
        here: Path = ("services", self.name, "environments", self.environment)
        over = self.over
        if over is not None and sub and sub[0] in over and (_has(over, sub) or not _has(self.base, sub)):
            return (*here, *sub)
        return ("services", self.name, *sub)


def _has(data: Any, path: Path) -> bool:
    for step in path:
        if isinstance(data, Map) and step in data:
            data = data[str(step)]
        elif isinstance(data, Seq) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return False
    return True


def build_services(
    findings: Findings,
    repositories: Mapping[str, Repository],
    shared_paths: Mapping[str, tuple[str, ...]],
    uses: Uses,
) -> tuple[Service, ...]:
    units = UnitFinder(repositories)
    built: list[Service] = []
    for name, entry in findings.entries("services"):
        base = without(entry, ("environments",))
        where = entry["environments"]
        plain: dict[str, Any] | None = None
        names = where if isinstance(where, Map) else [str(each) for each in where or ()]  # type: ignore[union-attr]
        for index, environment in enumerate(names):
            step: str | int = environment if isinstance(where, Map) else index
            at = ("services", name, "environments", step)
            findings.refer(at, "environments", environment, waits=False)
            over = where[environment] if isinstance(where, Map) else None
            if isinstance(over, Map) and over:
                variant = Variant(name, environment, overlay(base, over), base, over)
                if _is_whole(findings, variant):
                    service = _build(findings, variant, converted(variant.merged, "service"), units, uses)
                    built += [service] if service else []
            else:
                variant = Variant(name, environment, base, base, None)
                if _is_whole(findings, variant):
                    plain = plain if plain is not None else converted(base, "service")
                    service = _build(findings, variant, plain, units, uses)
                    built += [service] if service else []
    _check_places(findings, built)
    whole = (
        msgspec.structs.replace(each, shared_paths=shared_paths[each.repository])
        if each.repository in shared_paths
        else each
        for each in built
    )
    return tuple(sorted(whole, key=lambda each: each.id))


def _check_places(findings: Findings, services: list[Service]) -> None:
    """Of two services in one place each would undo what the other does."""
    owners: dict[tuple[str, str, str], str] = {}
    for service in services:
        if (place := exclusive_place(service)) is None:
            continue
        kind, name, key = place
        if (owner := owners.setdefault(place, service.id)) != service.id:
            findings.report(
                ("services", service.name),
                f"{service.id} and {owner} have the same {kind} {shown(name)}; give one of them another "
                f"`deploy.{key}`",
            )


def _is_whole(findings: Findings, variant: Variant) -> bool:
    """Whether what the overrides left is a service: the parts that are merged are judged again."""
    whole = True
    for key in ("repository", "deploy"):
        if key not in variant.merged:
            about = (
                "name the repository"
                if key == "repository"
                else "say how it is deployed, such as {kind: manual}"
            )
            findings.report(
                variant.locate(), f"`{key}` is missing in environment {variant.environment}; {about}"
            )
            whole = False
    for key in ("deploy", "health"):
        if variant.over is not None and key in variant.over and key in variant.merged:
            for found in violations(variant.merged[key], definition(key)):
                findings.report(variant.locate(key, *found.path), found.message, of_key=found.of_key)
                whole = False
    health = variant.merged.get("health")
    if isinstance(health, Map) and sum(probe in health for probe in PROBES) != 1:
        findings.report(variant.locate("health"), "name exactly one of `http`, `tcp` and `command`")
        whole = False
    return whole


def _build(
    findings: Findings, variant: Variant, fields: dict[str, Any], units: "UnitFinder", uses: Uses
) -> Service | None:
    environment = variant.environment
    repository = str(fields["repository"])
    if not findings.refer(variant.locate("repository"), "repositories", repository):
        return None
    unit = units.of_service(findings, variant, fields)
    whole = {**fields, "name": variant.name, "environment": environment, "unit": unit or repository}
    whole["depends_on"] = _dependencies(findings, variant, fields.get("depends_on", ()))
    service = msgspec.convert(whole, Service)
    uses.check_all(
        [variant.locate("secrets", index) for index in range(len(service.secrets))],
        service.secrets,
        environment,
    )
    deploy = service.deploy
    _check_health(findings, variant, service.health)
    if isinstance(deploy, DokployDeploy):
        if (fault := url_fault(deploy.server)) is not None:
            findings.report(variant.locate("deploy", "server"), f"{fault}; write https://HOST")
        uses.check_credential(variant.locate("deploy", "api_key"), deploy.api_key, environment)
    if isinstance(deploy, AgentDeploy):
        path = variant.locate("deploy", "project")
        needed = project_dependency(findings, path, deploy.project, environment)
        if needed is not None and needed not in service.depends_on:
            service = msgspec.structs.replace(service, depends_on=(*service.depends_on, needed))
    return service if unit is not None else None


def _check_health(findings: Findings, variant: Variant, health: Health | None) -> None:
    if health is None:
        return
    fault = None
    if health.http is not None and (wrong := url_fault(health.http)) is not None:
        fault = ("http", f"{wrong}; write https://HOST/PATH")
    if health.tcp is not None and (wrong := port_fault(health.tcp)) is not None:
        fault = ("tcp", wrong)
    if fault is not None:
        # A health that is a bare address has no keys.
        steps = ("health", fault[0]) if isinstance(variant.merged["health"], Map) else ("health",)
        findings.report(variant.locate(*steps), fault[1])


def _dependencies(findings: Findings, variant: Variant, names: Any) -> list[str]:
    found: list[str] = []
    for index, name in enumerate(names):
        path = variant.locate("depends_on", index)
        if name.startswith("project/"):
            needed = project_dependency(findings, path, name.removeprefix("project/"), variant.environment)
        elif name.startswith("target/"):
            needed = target_dependency(findings, path, name.removeprefix("target/"))
        else:
            needed = service_dependency(findings, path, name, variant.environment)
        found += [needed] if needed else []
    return found


def service_dependency(findings: Findings, path: Path, name: str, environment: str) -> str | None:
    """The id of a service that must run in the same environment."""
    if not findings.refer(path, "services", name):
        return None
    services = findings.data["services"]
    other = services.get(name) if isinstance(services, Map) else None
    where = other.get("environments") if isinstance(other, Map) else None
    if isinstance(where, Map | Seq) and environment not in where:
        findings.report(
            path,
            f"service {shown(name)} does not run in {environment}; add it there, or drop this dependency "
            f"in `environments: {{{environment}: {{depends_on: []}}}}`",
        )
        return None
    return f"services/{environment}/{name}"


def target_dependency(findings: Findings, path: Path, name: str) -> str | None:
    """The id of a secret target: what waits for it starts once its secrets are in place."""
    return f"targets/{name}" if findings.refer(path, "secret_targets", name) else None


def project_dependency(findings: Findings, path: Path, name: str, environment: str | None) -> str | None:
    """The id of a project of that environment, or of one that has none; any, where the asker has none."""
    if not findings.refer(path, "projects", name):
        return None
    projects = findings.data["projects"]
    other = projects.get(name) if isinstance(projects, Map) else None
    scope = other.get("environment") if isinstance(other, Map) else None
    if isinstance(scope, str) and environment is not None and scope != environment:
        findings.report(
            path,
            f"project {shown(name)} belongs to {scope}, not to {environment}; name one of {environment}, "
            "or leave it out there",
        )
        return None
    return f"projects/{scope or 'branch'}/{name}"


class UnitFinder:
    """Which unit of its repository a service or project belongs to."""

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        self._repositories = repositories

    def of_service(self, findings: Findings, variant: Variant, fields: Mapping[str, Any]) -> str | None:
        patterns = [each for each in fields.get("paths", ()) if not each.startswith("!")]
        return self.find(
            findings,
            variant.locate(),
            variant.locate("unit"),
            fields["repository"],
            fields.get("unit"),
            [_probe(each) for each in patterns],
        )

    def find(
        self,
        findings: Findings,
        path: Path,
        unit_path: Path,
        repository: str,
        named: str | None,
        probes: list[str],
    ) -> str | None:
        """The unit's full name; None with a problem where it cannot be told.

        `probes` are paths that stand for the resource's own; `named` is what its `unit` says.
        """
        found = self._repositories.get(repository)
        if found is None:
            return repository  # it has a problem of its own, and what refers to it waits
        if named is not None:
            if named in found.units:
                return found.units[named].name
            advice = suggest(named, list(found.units)) or f"repository {shown(repository)} has no units"
            findings.report(unit_path, f"there is no unit {shown(named)}; {advice}")
            return None
        if not found.units:
            return repository
        fitting = [unit.name for unit in found.units.values() if self._covers(unit, probes)]
        if len(found.units) == 1 and not probes:
            fitting = [unit.name for unit in found.units.values()]
        if len(fitting) == 1:
            return fitting[0]
        findings.report(
            path,
            f"it is not clear which unit of {shown(repository)} it belongs to; "
            f"set `unit` to one of {', '.join(found.units)}",
        )
        return None

    def _covers(self, unit: Unit, probes: list[str]) -> bool:
        if not probes:
            return False
        if not unit.paths:
            return True
        matcher = compiled(tuple(unit.paths))
        return all(matcher.match_file(probe) for probe in probes)


def _probe(pattern: str) -> str:
    """A path that a pattern matches for sure up to its first wildcard: `web/**` gives `web/x`."""
    kept: list[str] = []
    for part in pattern.strip("/").split("/"):
        if any(c in part for c in "*?["):
            return "/".join([*kept, "x"])
        kept.append(part)
    return "/".join([*kept, "x"] if pattern.endswith("/") else kept)
