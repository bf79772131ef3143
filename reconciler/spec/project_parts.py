"""Projects: where a tree comes from, and the directories on nodes that it goes to."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.spec.base_parts import check_bandwidth
from reconciler.spec.convert import converted
from reconciler.spec.document import Path, shown
from reconciler.spec.findings import Findings
from reconciler.spec.model import Node, Project, RenderedFile, SyncTarget
from reconciler.spec.secret_parts import Uses
from reconciler.spec.service_parts import (
    UnitFinder,
    project_dependency,
    service_dependency,
    target_dependency,
)

_TARGET_KEYS = ("nodes", "files", "after", "strategy", "keep")


def build_projects(
    findings: Findings, nodes: Mapping[str, Node], units: UnitFinder, uses: Uses
) -> dict[str, Project]:
    built: dict[str, Project] = {}
    for name, entry in findings.entries("projects"):
        path = ("projects", name)
        fields: dict[str, Any] = dict(converted(entry, "project"))
        _check_origin(findings, path, fields)
        if findings.is_broken("projects", name):
            continue
        sync = dict(fields.pop("sync"))
        own = {key: sync.pop(key) for key in _TARGET_KEYS if key in sync}
        targets = _targets(findings, (*path, "sync", "nodes"), own, nodes)
        _check_sync(findings, (*path, "sync"), sync, own)
        _settle_owners(findings, (*path, "sync", "owners"), sync, "source" in fields)
        files = msgspec.convert(own.get("files", []), tuple[RenderedFile, ...])
        _check_files(findings, (*path, "sync", "files"), files, fields.get("environment"), uses)
        whole = {
            **fields,
            "id": name,
            "unit": _unit(findings, path, fields, units),
            "sync": {**sync, "targets": targets},
            "files": files,
            "after": own.get("after", ()),
            "depends_on": _dependencies(findings, path, fields),
        }
        if not findings.is_broken("projects", name):
            built[name] = msgspec.convert(whole, Project)
    _check_shared_targets(findings, built)
    return built


def _check_origin(findings: Findings, path: Path, fields: Mapping[str, Any]) -> None:
    if ("repository" in fields) == ("source" in fields):
        findings.report(path, "name exactly one of `repository` and `source`")
        return
    if "environment" in fields:
        findings.refer((*path, "environment"), "environments", fields["environment"])
    if "repository" in fields:
        findings.refer((*path, "repository"), "repositories", fields["repository"])
        if ("environment" in fields) == ("branch" in fields):
            findings.report(path, "name exactly one of `environment` (its release there) and `branch`")
        return
    for key in ("branch", "build", "unit", "path"):
        if key in fields:
            findings.report((*path, key), "needs a `repository`; a `source` directory is synced as it is")


def _unit(findings: Findings, path: Path, fields: Mapping[str, Any], units: UnitFinder) -> str | None:
    if "repository" not in fields or "environment" not in fields:
        if "unit" in fields:
            findings.report((*path, "unit"), "a project that follows a branch has no release; remove it")
        return None
    where = fields.get("path", ".")
    probes = [] if where == "." else [f"{where}/x"]
    return units.find(findings, path, (*path, "unit"), fields["repository"], fields.get("unit"), probes)


def _targets(
    findings: Findings, path: Path, own: Mapping[str, Any], nodes: Mapping[str, Node]
) -> list[SyncTarget]:
    """Labels resolved to nodes; a node that an entry names by id is left to such entries."""
    entries: Sequence[Mapping[str, Any]] = own.get("nodes", ())
    by_id = {entry["node_id"] for entry in entries if "node_id" in entry}
    found: list[SyncTarget] = []
    for index, entry in enumerate(entries):
        at = (*path, index)
        if ("node_id" in entry) == ("labels" in entry):
            findings.report(at, "name exactly one of `node_id` and `labels`")
            continue
        if "node_id" in entry:
            findings.refer((*at, "node_id"), "nodes", entry["node_id"])
            chosen = [entry["node_id"]]
        else:
            wanted = entry["labels"].items()
            chosen = sorted(
                node.id for node in nodes.values() if node.id not in by_id and wanted <= node.labels.items()
            )
        for node in chosen:
            found.append(
                SyncTarget(
                    node=node,
                    target_path=entry["target_path"],
                    strategy=entry.get("strategy", own.get("strategy", "mirror")),
                    keep=int(entry.get("keep", own.get("keep", 3))),
                    include=tuple(entry.get("include", ())),
                    exclude=tuple(entry.get("exclude", ())),
                )
            )
    return found


def _check_sync(findings: Findings, path: Path, sync: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    check_bandwidth(findings, path, sync)
    retry = sync.get("retry", {})
    if retry.get("backoff", 1.0) > retry.get("max_backoff", 300.0):
        findings.report((*path, "retry"), "`backoff` is longer than `max_backoff`; shorten it")
    default = own.get("strategy", "mirror")
    strategies = {entry.get("strategy", default) for entry in own.get("nodes", ())} or {default}
    if sync.get("delete_foreign") and strategies == {"overlay"}:
        findings.report((*path, "delete_foreign"), "`overlay` deletes nothing; remove it, or mirror the tree")


def _settle_owners(findings: Findings, path: Path, sync: dict[str, Any], is_directory: bool) -> None:
    """Owners mean something in a directory of the primary; those of a checkout are whoever runs trueup."""
    if is_directory:
        sync.setdefault("owners", "names")
    elif sync.get("owners") == "names":
        findings.report(path, "needs a `source` directory; git knows no owners, so remove it")


def _check_files(
    findings: Findings, path: Path, files: Sequence[RenderedFile], environment: str | None, uses: Uses
) -> None:
    taken: dict[str, int] = {}
    for index, file in enumerate(files):
        at = (*path, index)
        if (file.format is None) == (file.template is None):
            findings.report(at, "name exactly one of `format` and `template`")
        for other in taken:
            if _overlap(file.path, other):
                same = (
                    "twice" if file.path == other else f"beside {shown(other)}, which it lies in or contains"
                )
                findings.report((*at, "path"), f"{shown(file.path)} is rendered {same}; choose another path")
                break
        taken[file.path] = index
        places = [(*at, "secrets", each) for each in range(len(file.secrets))]
        uses.check_all(places, file.secrets, environment)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(other + "/") or other.startswith(one + "/")


def _dependencies(findings: Findings, path: Path, fields: Mapping[str, Any]) -> list[str]:
    environment = fields.get("environment")
    found: list[str] = []
    for index, name in enumerate(fields.get("depends_on", ())):
        at = (*path, "depends_on", index)
        if name.startswith("project/"):
            needed = project_dependency(findings, at, name.removeprefix("project/"), None)
        elif name.startswith("target/"):
            needed = target_dependency(findings, at, name.removeprefix("target/"))
        elif environment is None:
            findings.report(at, "a project without an environment cannot wait for a service; name a project")
            continue
        else:
            needed = service_dependency(findings, at, name, environment)
        found += [needed] if needed else []
    return found


def _check_shared_targets(findings: Findings, projects: Mapping[str, Project]) -> None:
    """Two targets on one node never share a directory, and none lies in another."""
    by_node: dict[str, list[tuple[str, str]]] = {}
    for project in projects.values():
        for target in project.sync.targets:
            by_node.setdefault(target.node, []).append((target.target_path + "/", project.id))
    for node, targets in sorted(by_node.items()):
        # In this order, a directory that contains others stands right before the first of them.
        held: tuple[str, str] | None = None
        for path, name in sorted(targets):
            if held is not None and path.startswith(held[0]):
                outer, owner = held[0].rstrip("/"), held[1]
                relation = "is the target" if path == held[0] else f"lies in {shown(outer)}, the target"
                findings.report(
                    _place_of(projects[name], path.rstrip("/"), findings),
                    f"{shown(path.rstrip('/'))} on node {shown(node)} {relation} of project {shown(owner)} "
                    "already; give each its own directory",
                )
            else:
                held = (path, name)


def _place_of(project: Project, target_path: str, findings: Findings) -> Path:
    """The last of the project's entries with that directory: the earlier one may be the rightful one."""
    path: Path = ("projects", project.id, "sync", "nodes")
    projects: Any = findings.data["projects"]
    entries = projects[project.id]["sync"].get("nodes", ())
    fitting = [index for index, entry in enumerate(entries) if entry["target_path"] == target_path]
    return (*path, fitting[-1], "target_path")
