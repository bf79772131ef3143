"""The projects: their settings as the spec has them, and the state of each target."""

from reconciler.identity import project_id, sync_id
from reconciler.runner import Runner
from reconciler.spec.model import Build, Project, SyncRules, SyncTarget
from reconciler.status.documents import SyncStatus
from reconciler.sync_degraded import degraded
from reconciler.web.apis.known import (
    ConditionView,
    Known,
    Limit,
    Name,
    NotFound,
    Page,
    Paged,
    Planned,
    Readiness,
    conditions_of,
    known,
    page_of,
    planned_of,
    readiness_of,
    seen_as,
)
from reconciler.web.apis.services import Change, changes_of
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role


class Counts(Model, frozen=True):
    """What the last sync that changed something did."""

    files_written: int
    files_deleted: int
    foreign: int
    local_edits: int
    bytes_received: int
    bytes_reused: int


class TargetView(Model, frozen=True):
    """A project at one path on one node."""

    id: str
    node: str
    target_path: str
    strategy: str
    connected: bool
    """Whether the node's agent is there now."""
    ready: Readiness
    conditions: tuple[ConditionView, ...]
    config_hash: str
    applied_revision: str
    attempted_revision: str
    tree_digest: str
    counts: Counts
    edits_kept: int
    """Local edits that are there and stay, as of the last look."""
    after_done: bool
    warnings: tuple[str, ...]
    last_change: Change | None
    planned: Planned | None
    suspended: bool


class RenderedFileView(Model, frozen=True):
    """A file that is rendered into each target. What is in it is secret."""

    path: str
    format: str | None
    template: str | None
    mode: str
    sources: tuple[str, ...]


class ProjectView(Model, frozen=True):
    id: str
    """`projects/ENVIRONMENT/NAME`, or `projects/branch/NAME`."""
    name: str
    title: str
    environment: str | None
    branch: str | None
    repository: str | None
    unit: str | None
    directory: str | None
    """On the primary, for one that comes from there."""
    path: str
    in_order: int
    """How many of its targets are."""
    degraded: str | None
    """Where syncs failed after all their attempts, which; it is `SyncDegraded` then."""
    targets: tuple[TargetView, ...]
    suspended: bool


class Projects(Page, frozen=True):
    projects: tuple[ProjectView, ...]


class ProjectDetail(ProjectView, frozen=True):
    build: Build | None
    sync: SyncRules
    """As the spec has it, with its own names: durations are seconds, sizes bytes."""
    files: tuple[RenderedFileView, ...]
    after: tuple[str, ...]
    depends_on: tuple[str, ...]


class ProjectsQuery(Paged, frozen=True, kw_only=True):
    limit: Limit = 100
    environment: Name = ""
    node: Name = ""


class WhichProject(Asked, frozen=True, kw_only=True):
    environment: Name = ""
    """Needed only where releases give several environments a project of that name."""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def listed(call: Call[ProjectsQuery, Nothing]) -> Projects:
        seen, query = known(runner), call.query
        chosen = {
            project_id(each): each
            for each in seen.spec.projects.values()
            if query.environment in ("", each.environment)
            and (not query.node or any(target.node == query.node for target in each.sync.targets))
        }
        ids, following = page_of(sorted(chosen), query)
        connected = _connected(runner)
        return Projects(
            projects=tuple(project_view(seen, chosen[id], connected) for id in ids), next=following
        )

    async def one(call: Call[WhichProject, Nothing]) -> ProjectDetail:
        seen, name, environment = known(runner), call.path["name"], call.query.environment
        named = [
            each
            for each in seen.spec.projects.values()
            if each.id == name and environment in ("", each.environment)
        ]
        if not named:
            raise NotFound(f"Project {name}")
        # The head's own has its name as its key.
        project = seen.spec.projects.get(name, named[0])
        return project_detail(seen, project if project in named else named[0], _connected(runner))

    return [
        Endpoint(
            method="GET",
            path="/api/sync/projects",
            summary="The projects with the state of their targets",
            tag="projects",
            handler=listed,
            role=Role.READ,
            query=ProjectsQuery,
            answer=Projects,
        ),
        Endpoint(
            method="GET",
            path="/api/sync/projects/{name}",
            summary="One project, with its settings as in the spec",
            tag="projects",
            handler=one,
            role=Role.READ,
            query=WhichProject,
            answer=ProjectDetail,
        ),
    ]


def _connected(runner: Runner) -> frozenset[str]:
    hub = runner.primary.hub
    return hub.connected() if hub is not None else frozenset()


def project_view(known: Known, project: Project, connected: frozenset[str]) -> ProjectView:
    targets = tuple(_target(known, project, each, connected) for each in project.sync.targets)
    mine = [known.recorded.syncs[each.id] for each in targets if each.id in known.recorded.syncs]
    bad = degraded(mine).get(project_id(project))
    return ProjectView(
        id=project_id(project),
        name=project.id,
        title=project.name,
        environment=project.environment,
        branch=project.branch,
        repository=project.repository,
        unit=project.unit,
        directory=project.source.directory if project.source is not None else None,
        path=project.path,
        degraded=bad.message if bad is not None else None,
        in_order=sum(each.ready.status == "True" for each in targets),
        targets=targets,
        suspended=project.suspend or known.control.suspends(project_id(project)),
    )


def project_detail(known: Known, project: Project, connected: frozenset[str]) -> ProjectDetail:
    view = project_view(known, project, connected)
    return ProjectDetail(
        **{name: getattr(view, name) for name in view.__struct_fields__},
        build=project.build,
        sync=project.sync,
        files=tuple(
            RenderedFileView(
                path=each.path,
                format=each.format,
                template=each.template,
                mode=f"{each.mode:04o}",
                sources=tuple(dict.fromkeys(use.source for use in each.secrets)),
            )
            for each in project.files
        ),
        after=project.after,
        depends_on=project.depends_on,
    )


def _target(known: Known, project: Project, target: SyncTarget, connected: frozenset[str]) -> TargetView:
    id = sync_id(project, target)
    status = known.recorded.syncs.get(id) or SyncStatus(
        id=id, node=target.node, target_path=target.target_path
    )
    changes = changes_of(status.history)
    return TargetView(
        id=id,
        node=target.node,
        target_path=target.target_path,
        strategy=target.strategy,
        connected=target.node in connected,
        ready=readiness_of(status.conditions),
        conditions=conditions_of(status.conditions),
        config_hash=status.config_hash,
        applied_revision=status.last_applied_revision,
        attempted_revision=status.last_attempted_revision,
        tree_digest=status.tree_digest,
        counts=seen_as(Counts, status.counts),
        edits_kept=status.edits_kept,
        after_done=status.after_done,
        warnings=status.warnings,
        last_change=changes[0] if changes else None,
        planned=planned_of(known, id),
        suspended=known.control.suspends(id),
    )
