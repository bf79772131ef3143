"""The tasks: one project to one node, or one command there, with attempts, progress and what was printed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
import trio
from starlette.responses import Response

from reconciler.errors import TrueupError
from reconciler.journal import AttemptRecord, Journal, TaskRecord
from reconciler.progress import Progress
from reconciler.runner import Runner
from reconciler.web.answers import NO_STORE
from reconciler.web.apis.known import Limit, Name, NotFound, Page, seen_as
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role
from reconciler.web.streams import (
    BEAT,
    HEARTBEAT,
    RETRY,
    EventStream,
    Looks,
    Streams,
    Tell,
    last_event_id,
    wants_stream,
)

State = Literal["PENDING", "RUNNING", "SUCCESS", "FAILED", "RETRYING"]
PROGRESS: Final = 1.0
"""Seconds between two looks at how far a task is."""

ENDED: Final = frozenset({"SUCCESS", "FAILED"})
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
    phase: str
    """What the agent is at: wait, look, copy, place or command; empty: it has not told."""
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    """0: not known."""
    still_seconds: int
    """How long nothing of this has changed."""


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
    """`endedAt` is empty, and so are `reason`, `message` and `log`, while it runs."""

    number: int
    state: State
    began_at: str
    ended_at: str
    reason: str
    message: str
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
    id: Annotated[str, msgspec.Meta(max_length=255, description="What the id begins with.")] = ""
    resource: Annotated[
        str, msgspec.Meta(max_length=1024, description="Of this one and all below it, such as services.")
    ] = ""


class LogsQuery(Asked, frozen=True, kw_only=True):
    progress: bool = False
    """Of a stream: also how far the attempt is that runs, whenever that has changed."""


def endpoints(runner: Runner, stop: trio.Event) -> list[AnyEndpoint]:
    """Streams end with `stop`."""
    tasks = _Tasks(runner, stop)
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
            summary="What the attempts of a task printed; with Accept: text/event-stream each once it has "
            "ended, after Last-Event-ID",
            tag="tasks",
            handler=tasks.logs,
            role=Role.READ,
            query=LogsQuery,
            answer=TaskLogs,
            also={
                "text/event-stream": "Attempts as they begin and end, how the task ended, and where asked "
                "the progress between."
            },
            headers={"Last-Event-ID": "Of a stream: the number of the last attempt whose end was seen."},
        ),
    ]


class _Tasks:
    def __init__(self, runner: Runner, stop: trio.Event) -> None:
        self._primary = runner.primary
        self._stop = stop
        self._streams = Streams()

    async def listed(self, call: Call[TasksQuery, Nothing]) -> Tasks:
        page = await trio.to_thread.run_sync(tasks_page, self._primary.journal, call.query)
        return tasks_of(page, self._primary.running.progress)

    async def one(self, call: Call[Nothing, Nothing]) -> TaskView:
        return self._view(await self._task(call.path["id"]))

    async def logs(self, call: Call[LogsQuery, Nothing]) -> TaskLogs | Response:
        task = await self._task(call.path["id"])
        if wants_stream(call.request):
            seen = last_event_id(call.request) or 0
            return EventStream(
                call.request,
                partial(self._run, call, task.id, seen),
                NO_STORE,
                streams=self._streams,
                key=call.caller.name,
            )
        return task_logs(task)

    async def _run(self, call: Call[LogsQuery, Nothing], id: str, seen: int, tell: Tell) -> None:
        """Level-triggered: whatever was missed, what is told is how the task is now."""
        looks = Looks(self._primary.bulletin, self._stop, again=call.again)
        begun: set[int] = set()
        shown: ProgressView | None = None
        await tell(RETRY)
        while await looks.another(patience=HEARTBEAT if shown is None else PROGRESS):
            try:
                task = await self._task(id)
            except TrueupError:
                return
            news = news_of(task_logs(task), seen, begun)
            for each in news:
                await tell(as_sent(each))
            progress = self._view(task).progress if call.query.progress else None
            if progress is not None and progress != shown:
                await tell(b"event: progress\ndata: %s\n\n" % msgspec.json.encode(progress))
            elif not news:
                await tell(BEAT)
            shown = progress
            if task.state in ENDED:
                return
            seen = max([seen, *(each.number for each in task.attempts if each.ended_at)])
            begun = {each.number for each in task.attempts}

    async def _task(self, id: str) -> TaskRecord:
        found = await trio.to_thread.run_sync(self._primary.journal.task, id)
        if found is None:
            raise NotFound(f"Task {id}")
        return found

    def _view(self, task: TaskRecord) -> TaskView:
        return task_view(task, self._primary.running.progress(task.id))


def task_logs(task: TaskRecord) -> TaskLogs:
    return TaskLogs(
        task=task.id,
        state=task.state,
        attempts=tuple(seen_as(AttemptLog, each) for each in task.attempts),
    )


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened to a task. `number`: of an attempt that has ended, from which one goes on."""

    kind: Literal["begun", "ended", "task"]
    document: AttemptLog | Mapping[str, str]
    number: int | None = None


def news_of(logs: TaskLogs, seen: int, begun: Collection[int] = ()) -> list[News]:
    """Of a task: attempts that ended after the number `seen`, one that runs and is not among those that have
    `begun`, and the end of it all."""
    news = []
    for attempt in logs.attempts:
        if attempt.ended_at and attempt.number > seen:
            news.append(News("ended", attempt, attempt.number))
        elif not attempt.ended_at and attempt.number not in begun:
            news.append(News("begun", attempt))
    if logs.state in ENDED:
        news.append(News("task", {"task": logs.task, "state": logs.state}))
    return news


def as_sent(news: News) -> bytes:
    id = b"" if news.number is None else b"id: %d\n" % news.number
    return b"%sevent: %s\ndata: %s\n\n" % (id, news.kind.encode(), msgspec.json.encode(news.document))


def tasks_page(journal: Journal, query: TasksQuery) -> tuple[Sequence[TaskRecord], str | None]:
    """The tasks of a page, and what `next` is."""
    # One more than a page has: whether there are any is known then.
    found = journal.tasks(
        query.limit + 1,
        project=query.project,
        node=query.node,
        state=query.state,
        before=query.before,
        prefix=query.id,
        resource=query.resource,
    )
    page = found[: query.limit]
    return page, page[-1].id if len(found) > len(page) else None


def tasks_of(
    page: tuple[Sequence[TaskRecord], str | None], progress: Callable[[str], Progress | None]
) -> Tasks:
    found, following = page
    return Tasks(tasks=tuple(task_view(task, progress(task.id)) for task in found), next=following)


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
