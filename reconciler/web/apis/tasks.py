"""The tasks: one project to one node, or one command there, with attempts, progress and what was printed."""

from typing import Annotated, Literal

import msgspec
import trio

from reconciler.journal import AttemptRecord, Journal, TaskRecord
from reconciler.runner import Runner
from reconciler.running import Progress
from reconciler.web.apis.known import Limit, Name, NotFound, Page, seen_as
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role

State = Literal["PENDING", "RUNNING", "SUCCESS", "FAILED", "RETRYING"]
Detail = bool | int | float | str | list[str] | None


class AttemptView(Model, frozen=True):
    """`ended_at` is empty while it runs. `details`: what the agent counted."""

    number: int
    state: State
    began_at: str
    ended_at: str
    reason: str
    message: str
    details: dict[str, Detail]


class ProgressView(Model, frozen=True):
    """How far an attempt is. All of `total_bytes` is sent only to a target that has nothing of it."""

    attempt: int
    total_bytes: int
    sent_bytes: int
    received_bytes: int


class TaskView(Model, frozen=True):
    id: str
    project: str
    node: str
    resource: str
    state: State
    created_at: str
    trace: str
    attempts: tuple[AttemptView, ...]
    progress: ProgressView | None
    """Null: nothing of it runs."""


class Tasks(Page, frozen=True):
    """`next` goes into `before`."""

    tasks: tuple[TaskView, ...]


class AttemptLog(Model, frozen=True):
    number: int
    state: State
    log: str
    """An excerpt of what its commands printed, and what the agent warned of."""


class TaskLogs(Model, frozen=True):
    task: str
    state: State
    attempts: tuple[AttemptLog, ...]


class TasksQuery(Asked, frozen=True, kw_only=True):
    limit: Limit = 50
    before: Annotated[str, msgspec.Meta(max_length=255, description="`next` of the page before.")] = ""
    project: Name = ""
    node: Name = ""
    state: State | Literal[""] = ""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    tasks = _Tasks(runner)
    return [
        Endpoint(
            method="GET",
            path="/api/sync/tasks",
            summary="The tasks, the newest first",
            tag="tasks",
            handler=tasks.listed,
            role=Role.READ,
            query=TasksQuery,
            answer=Tasks,
        ),
        Endpoint(
            method="GET",
            path="/api/sync/tasks/{id}",
            summary="One task with its attempts",
            tag="tasks",
            handler=tasks.one,
            role=Role.READ,
            answer=TaskView,
        ),
        Endpoint(
            method="GET",
            path="/api/sync/tasks/{id}/logs",
            summary="What the attempts of a task printed",
            tag="tasks",
            handler=tasks.logs,
            role=Role.READ,
            answer=TaskLogs,
        ),
    ]


class _Tasks:
    def __init__(self, runner: Runner) -> None:
        self._primary = runner.primary

    async def listed(self, call: Call[TasksQuery, Nothing]) -> Tasks:
        found = await trio.to_thread.run_sync(_page, self._primary.journal, call.query)
        page = found[: call.query.limit]
        following = page[-1].id if len(found) > len(page) else None
        return Tasks(tasks=tuple(map(self._view, page)), next=following)

    async def one(self, call: Call[Nothing, Nothing]) -> TaskView:
        return self._view(await self._task(call.path["id"]))

    async def logs(self, call: Call[Nothing, Nothing]) -> TaskLogs:
        task = await self._task(call.path["id"])
        return TaskLogs(
            task=task.id,
            state=task.state,
            attempts=tuple(seen_as(AttemptLog, each) for each in task.attempts),
        )

    async def _task(self, id: str) -> TaskRecord:
        found = await trio.to_thread.run_sync(self._primary.journal.task, id)
        if found is None:
            raise NotFound(f"Task {id}")
        return found

    def _view(self, task: TaskRecord) -> TaskView:
        return task_view(task, self._primary.running.progress(task.id))


def _page(journal: Journal, query: TasksQuery) -> tuple[TaskRecord, ...]:
    """One more than a page has: whether there are any is known then."""
    return journal.tasks(
        query.limit + 1, project=query.project, node=query.node, state=query.state, before=query.before
    )


def task_view(task: TaskRecord, progress: Progress | None) -> TaskView:
    return TaskView(
        id=task.id,
        project=task.project,
        node=task.node,
        resource=task.resource,
        state=task.state,
        created_at=task.created_at,
        trace=task.trace,
        attempts=tuple(map(_attempt, task.attempts)),
        progress=None if progress is None else seen_as(ProgressView, progress),
    )


def _attempt(attempt: AttemptRecord) -> AttemptView:
    return seen_as(AttemptView, attempt)
