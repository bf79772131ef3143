"""The API that changes how projects are synced, and has them synced: a commit, runs and retries."""

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import trio

from reconciler import spec_edit
from reconciler.identity import project_id
from reconciler.runner import Runner
from reconciler.spec.model import Project
from reconciler.web.apis.known import NoPassYet
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
            answer=Follow,
            status=202,
            refusals={409: "The project is suspended, disabled, or has no targets."},
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
            refusals={409: "The task has not ended in failure."},
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

    async def run(self, call: Call[Nothing, Nothing]) -> Follow:
        project = self._project(call.path["name"])
        if project.suspend:
            raise RequestRefused(409, f"{project.id} is suspended in the spec")
        if not project.sync.enabled:
            raise RequestRefused(409, f"the sync of {project.id} is not enabled in the spec")
        if not project.sync.targets:
            raise RequestRefused(409, f"{project.id} has no targets: no node is named, or has the labels")
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
        if task.state != "FAILED":
            raise RequestRefused(409, f"the task is {task.state}; only one that is FAILED can be tried again")
        why = f"{call.caller.name} asked for a retry of {task.resource}"
        await ask_durably(self._runner, "api", PassAsked(why, resources=(task.resource,)))
        return Follow(
            success=True,
            message=f"the next pass tries {task.resource} again",
            url=f"/api/sync/tasks?node={quote(task.node, safe='')}",
        )

    def _project(self, name: str) -> Project:
        spec = self._runner.primary.spec
        if spec is None:
            raise NoPassYet("no pass has read the spec yet", hint="try again in a moment, or look at the log")
        found = next((each for each in spec.projects.values() if each.id == name), None)
        if found is None:
            raise RequestRefused(404, f"the spec has no project {name!r}")
        return found
