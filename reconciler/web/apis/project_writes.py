"""The API that changes how projects are synced, and has them synced: a commit, runs and retries."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import trio

from reconciler import spec_edit
from reconciler.control.records import Record
from reconciler.control.situation import told
from reconciler.control.state import ControlState, fold
from reconciler.identity import is_installation, project_id, sync_id
from reconciler.journal_records import TaskRecord
from reconciler.runner import Runner
from reconciler.spec.model import Project, Spec
from reconciler.web.apis.known import spec_of
from reconciler.web.apis.projects import WhichProject
from reconciler.web.apis.writing import REFUSALS, TIME, Writing, Wrote, how, judged, wrote
from reconciler.web.asked_passes import ask_durably
from reconciler.web.deliveries import PassAsked
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role
from reconciler.web.refusals import RequestRefused


class SyncSettings(Asked, frozen=True):
    sync: Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=100)]
    """Settings by their names in the spec, such as `on_drift`; null takes one out, and its default counts."""


class Follow(Model, frozen=True):
    """What was asked for will be done by the next pass; `url` is where to see what becomes of it."""

    success: bool
    message: str
    url: str


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    api = _Projects(runner)
    return [
        Endpoint(
            method="PUT",
            path="/api/sync/projects/{name}/sync",
            summary="Change how a project is synced",
            tag="projects",
            handler=judged(api.change),
            role=Role.OPERATE,
            query=Writing,
            body=SyncSettings,
            answer=Wrote,
            refusals=REFUSALS,
            deadline=TIME,
        ),
        Endpoint(
            method="POST",
            path="/api/sync/projects/{name}/run",
            summary="Have a project synced to all its targets, changed or not",
            tag="projects",
            handler=api.run,
            role=Role.OPERATE,
            query=WhichProject,
            answer=Follow,
            status=202,
            refusals={
                409: "The project is suspended, frozen, disabled, without targets, or there are several."
            },
        ),
        Endpoint(
            method="POST",
            path="/api/sync/tasks/{id}/retry",
            summary="Have a task that failed done again, without waiting for its back-off",
            tag="tasks",
            handler=api.retry,
            role=Role.OPERATE,
            answer=Follow,
            status=202,
            refusals={409: "The task has not failed, is an installation, or of what is suspended or frozen."},
        ),
    ]


class _Projects:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def change(self, call: Call[Writing, SyncSettings]) -> Wrote:
        name, asked = call.path["name"], how(call.caller, call.query)
        written = await self._runner.primary.spec_writer.write(
            spec_edit.change_sync(name, call.body.sync),
            author=asked.author,
            expected=asked.expected,
            dry_run=asked.dry_run,
        )
        if written.commit:
            self._runner.ask(f"how {name} is synced was changed")
        return Wrote(**wrote(written, f"how {name} is synced was changed"))

    async def run(self, call: Call[WhichProject, Nothing]) -> Follow:
        project = project_named(spec_of(self._runner), call.path["name"], call.query.environment)
        if project.suspend:
            raise RequestRefused(409, f"{project.id} is suspended in the spec")
        if not project.sync.enabled:
            raise RequestRefused(409, f"the sync of {project.id} is not enabled in the spec")
        if not project.sync.targets:
            raise RequestRefused(409, f"{project.id} has no targets: no node is named, or has the labels")
        targets = [sync_id(project, each) for each in project.sync.targets]
        await self._require_free([project_id(project), *targets])
        why = f"{call.caller.name} asked for a run of {project.id}"
        await ask_durably(self._runner, "api", PassAsked(why, forced=(project_id(project),)))
        return Follow(
            success=True,
            message=f"the next pass syncs {project.id} to {len(project.sync.targets)} targets",
            url=f"/api/sync/tasks?project={quote(project.id, safe='')}",
        )

    async def retry(self, call: Call[Nothing, Nothing]) -> Follow:
        id = call.path["id"]
        task = await trio.to_thread.run_sync(self._runner.primary.journal.task, id)
        if task is None:
            raise RequestRefused(404, "there is no such task, or it is long ago")
        require_retriable(task)
        await self._require_free([task.resource])
        why = f"{call.caller.name} asked for a retry of {task.resource}"
        await ask_durably(self._runner, "api", PassAsked(why, resources=(task.resource,)))
        return Follow(
            success=True,
            message=f"the next pass tries {task.resource} again",
            url=f"/api/sync/tasks?node={quote(task.node, safe='')}",
        )

    async def _require_free(self, resources: Sequence[str]) -> None:
        """Refuse what the next pass would leave as it is: the first of these, or all of the others."""
        whole, *parts = resources
        control = fold(await self._runner.primary.operators.read())
        if control.frozen is not None:
            raise RequestRefused(409, f"everything is frozen {told(control.frozen)}")
        kept = keeping(control, whole)
        if kept is None and parts:
            each = [keeping(control, part) for part in parts]
            kept = each[0] if all(each) else None
        if kept is not None:
            name = kept.resource
            raise RequestRefused(
                409, f"{name} is suspended {told(kept)}", hint=f"`trueup resume {name}` ends that"
            )


def require_retriable(task: TaskRecord) -> None:
    """Raises RequestRefused for what no pass would do again."""
    if task.state != "FAILED":
        raise RequestRefused(409, f"the task is {task.state}; only one that is FAILED can be tried again")
    if is_installation(task.resource):
        raise RequestRefused(
            409, f"no pass installs an agent on {task.node}", hint="run `trueup node install` again"
        )


def keeping(control: ControlState, resource: str) -> Record | None:
    """The decision for which a project, or one of its targets, stays as it is."""
    parts = resource.split("/")
    places = [resource, *([f"environments/{parts[1]}"] if parts[0] == "projects" else [])]
    return next((found for place in places if (found := control.suspension_of(place)) is not None), None)


def project_named(spec: Spec, name: str, environment: str) -> Project:
    """The one project of that name. Releases can give several environments one each: then an environment
    has to be named. Raises RequestRefused."""
    named = [each for each in spec.projects.values() if each.id == name]
    if not named:
        raise RequestRefused(404, f"the spec has no project {name!r}")
    chosen = [each for each in named if environment in ("", each.environment)]
    places = ", ".join(sorted(each.environment or "none" for each in named))
    if not chosen:
        raise RequestRefused(404, f"the spec has no project {name!r} in {environment}; it is in {places}")
    if len(chosen) > 1:
        raise RequestRefused(409, f"{name} is in several environments", hint=f"name one of them: {places}")
    return chosen[0]
