"""Services, nodes and projects on the page. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from reconciler.control.node_rollback import name_of
from reconciler.control.records import Record
from reconciler.control.situation import told
from reconciler.identity import project_id, sync_id
from reconciler.node_health import Health, drift_of, health_of
from reconciler.spec.model import Project, Service
from reconciler.status.conditions import Reason
from reconciler.status.documents import NodeStatus, ServiceStatus, SyncStatus
from reconciler.sync_degraded import degraded
from reconciler.web.page.facts import Facts
from reconciler.web.page.model import (
    Badge,
    DriftView,
    KeptView,
    NodeView,
    ProjectView,
    ServiceGroup,
    ServiceView,
    State,
    TargetView,
    Tone,
    healthy_of,
    revision_of,
    stamp,
    state_of,
)

MAX_SERVICES = 500
"""Services of one environment that are listed; those that are not in order are listed first."""

MAX_TARGETS = 100
"""Targets of one node or project that are listed."""


def services(facts: Facts) -> tuple[ServiceGroup, ...]:
    """By environment; in each the troubled ones first."""
    wanted = {each.id: each for each in (facts.spec.services if facts.spec is not None else ())}
    ids = dict.fromkeys([*wanted, *sorted(facts.recorded.services)])
    reasons = _reasons(facts)
    groups: dict[str, list[ServiceView]] = defaultdict(list)
    for id in ids:
        environment = id.split("/")[1]
        status = facts.recorded.services.get(id)
        groups[environment].append(_service(facts, id, wanted.get(id), status, reasons.get(id, "")))
    order = list(facts.spec.environments) if facts.spec is not None else []
    names = [*(name for name in order if name in groups), *sorted(groups.keys() - set(order))]
    return tuple(_group(name, groups[name]) for name in names)


def _group(environment: str, views: list[ServiceView]) -> ServiceGroup:
    views.sort(key=lambda view: (_RANK[view.state.badge.tone], view.name))
    return ServiceGroup(environment, tuple(views[:MAX_SERVICES]), max(0, len(views) - MAX_SERVICES))


_RANK: Mapping[Tone, int] = {Tone.BAD: 0, Tone.BUSY: 1, Tone.WAIT: 2, Tone.IDLE: 3, Tone.GOOD: 4}


def _reasons(facts: Facts) -> dict[str, str]:
    """By resource, why its newest step was planned."""
    found: dict[str, str] = {}
    for step in facts.steps:
        found.setdefault(step.resource, f"{step.action}: {step.reason}")
    return found


def _service(
    facts: Facts, id: str, service: Service | None, status: ServiceStatus | None, why: str
) -> ServiceView:
    _, environment, name = id.split("/", 2)
    status = status or ServiceStatus(id=id)
    ref, commit = revision_of(status.last_applied_revision)
    newest = status.history[0] if status.history else None
    state = state_of(status.conditions)
    if service is None and facts.spec is not None:
        state = State(Badge("not in the spec", Tone.IDLE), state.reason, state.message, state.since)
    if (by := facts.control.suspension_of(id)) is not None:
        state = State(Badge("suspended", Tone.WAIT), "Suspended", f"suspended {told(by)}", state.since)
    return ServiceView(
        id=id,
        name=name,
        environment=environment,
        state=state,
        healthy=healthy_of(status.conditions),
        deploy=_kind(service) or status.deploy,
        revision=ref,
        commit=commit,
        hash=status.config_hash,
        changed=stamp(newest.at) if newest is not None else "",
        outcome=newest.outcome if newest is not None else "",
        why=why,
        suspended=by is not None,
    )


def _kind(service: Service | None) -> str:
    if service is None:
        return ""
    tag = type(service.deploy).__struct_config__.tag
    return str(tag or "")


def _releases(status: SyncStatus) -> tuple[KeptView, ...]:
    return tuple(
        KeptView(each.name, name_of(each), stamp(each.at), each.name == status.current)
        for each in reversed(status.releases)
    )


def _target(facts: Facts, id: str, status: SyncStatus | None, *, node: str, path: str) -> TargetView:
    status = status or SyncStatus(id=id, node=node, target_path=path)
    ref, commit = revision_of(status.last_applied_revision)
    return TargetView(
        id=id,
        node=node,
        project=id.split("/")[2],
        path=path,
        state=state_of(status.conditions),
        revision=" ".join(word for word in (ref, commit) if word),
        changed=stamp(status.history[0].at) if status.history else "",
        drift=_drift(status),
        counts=_counts(status),
        releases=_releases(status),
        returned=told(returned) if (returned := facts.control.returned.get(id)) is not None else "",
    )


def _drift(status: SyncStatus) -> str:
    found = drift_of(status.conditions)
    return (found.message or found.reason) if found is not None else ""


def _counts(status: SyncStatus) -> str:
    """What the last sync that changed something did, and what stays there now."""
    counts = status.counts
    said = (
        (counts.files_written, "written"),
        (counts.files_deleted, "deleted"),
        (counts.foreign, "of others"),
        (0 if status.edits_kept else counts.local_edits, "had been edited there"),
        (status.edits_kept, "edited there and kept"),
    )
    return ", ".join(f"{number} {word}" for number, word in said if number)


def targets(facts: Facts) -> list[TargetView]:
    """All of the spec, and those that left it."""
    found: dict[str, TargetView] = {}
    recorded = facts.recorded.syncs
    for project in facts.spec.projects.values() if facts.spec is not None else ():
        for target in project.sync.targets:
            id = sync_id(project, target)
            found[id] = _target(facts, id, recorded.get(id), node=target.node, path=target.target_path)
    for id, status in sorted(recorded.items()):
        if id not in found:
            found[id] = _target(facts, id, status, node=status.node, path=status.target_path)
    return list(found.values())


def nodes(facts: Facts, all_targets: Iterable[TargetView]) -> tuple[NodeView, ...]:
    on: dict[str, list[TargetView]] = defaultdict(list)
    for target in all_targets:
        on[target.node].append(target)
    names = dict.fromkeys([*facts.nodes, *(id.removeprefix("nodes/") for id in sorted(facts.recorded.nodes))])
    return tuple(_node(facts, name, on[name]) for name in names)


def _node(facts: Facts, name: str, on: list[TargetView]) -> NodeView:
    node = facts.nodes.get(name)
    in_spec = node is not None or not facts.nodes_known
    status = facts.recorded.nodes.get(f"nodes/{name}") or NodeStatus(id=f"nodes/{name}")
    connected, paired = name in facts.connected, bool(status.certificate)
    revoked = facts.control.revocation_of(name, node.token_key) if node is not None else None
    version = facts.versions.get(name) or status.agent_version
    return NodeView(
        name=name,
        title=node.name if node is not None and node.name != name else "",
        labels=tuple(f"{key}={value}" for key, value in (node.labels if node is not None else {}).items()),
        state=_node_state(facts, in_spec, status, revoked),
        connected=connected,
        paired=paired,
        unpinned=status.trust_on_first_use,
        fingerprint=status.fingerprint,
        paired_at=stamp(status.paired_at),
        version=version,
        last_sync=max((target.changed for target in on), default=""),
        drift=tuple(DriftView(target.project, target.path, target.drift) for target in on if target.drift),
        revoked=revoked is not None,
        in_spec=in_spec,
        targets=tuple(on[:MAX_TARGETS]),
    )


def _node_state(facts: Facts, in_spec: bool, status: NodeStatus, revoked: Record | None) -> State:
    """Its own condition, and whether it is there now and what lies on it is in order."""
    own = state_of(status.conditions)
    if not in_spec:
        return State(Badge("not in the spec", Tone.IDLE), own.reason, own.message)
    name = status.id.removeprefix("nodes/")
    syncs = (each for each in facts.recorded.syncs.values() if each.node == name)
    health = health_of(status, syncs, connected=name in facts.connected, revoked=revoked)
    badge, message = _HEALTH[health]
    if revoked is not None:
        return State(badge, Reason.REVOKED, f"revoked {told(revoked)}")
    if health == "degraded":
        return State(badge, own.reason, message)
    return State(badge, own.reason, own.message or message)


_HEALTH: Mapping[Health, tuple[Badge, str]] = {
    "revoked": (Badge("revoked", Tone.BAD), ""),
    "unpaired": (Badge("not paired", Tone.WAIT), "its join command has not been run yet"),
    "away": (Badge("away", Tone.BAD), "its agent is not connected"),
    "degraded": (Badge("degraded", Tone.BAD), "something on it is not in order"),
    "healthy": (Badge("connected", Tone.GOOD), ""),
}


def projects(facts: Facts, all_targets: Iterable[TargetView]) -> tuple[ProjectView, ...]:
    of: dict[str, list[TargetView]] = defaultdict(list)
    for target in all_targets:
        of["/".join(target.id.split("/")[:3])].append(target)
    given = facts.spec.projects.values() if facts.spec is not None else ()
    return tuple(_project(facts, project, of[project_id(project)]) for project in given)


def _project(facts: Facts, project: Project, of: list[TargetView]) -> ProjectView:
    id = project_id(project)
    by = facts.control.suspension_of(id)
    if by is not None:
        state = State(Badge("suspended", Tone.WAIT), "Suspended", f"suspended {told(by)}")
    elif project.suspend:
        state = State(Badge("suspended", Tone.WAIT), "Suspended", "suspended in the spec")
    elif not project.sync.enabled:
        state = State(Badge("not synced", Tone.IDLE), "", "its sync is not enabled")
    elif not of:
        state = State(Badge("no targets", Tone.IDLE), "", "no node of the spec is meant by its sync")
    else:
        worst = min(of, key=lambda target: _RANK[target.state.badge.tone])
        state = worst.state
        bad = degraded(facts.recorded.syncs.values()).get(id) if len(of) > 1 else None
        if bad is not None:
            state = State(Badge("degraded", Tone.BAD), Reason.SYNC_DEGRADED, bad.message)
    source = project.source.directory if project.source is not None else project.repository or ""
    return ProjectView(
        id=id,
        name=project.id,
        title=project.name if project.name != project.id else "",
        scope=project.environment or (f"branch {project.branch}" if project.branch else "a directory"),
        environment=project.environment or "",
        source=source if project.path in ("", ".") else f"{source}/{project.path}",
        state=state,
        enabled=project.sync.enabled,
        suspended=by is not None,
        targets=tuple(of[:MAX_TARGETS]),
    )
