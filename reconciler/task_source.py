"""Where tasks are read: at a running primary, or in the journal of the state directory where none runs."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
import trio

from reconciler import live
from reconciler.errors import JournalUnavailable
from reconciler.event_source import LOOKS, primary_has
from reconciler.installations import is_under_way
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.live_streams import Follower, Say
from reconciler.sent_events import SentEvent
from reconciler.settings import Settings
from reconciler.state_lock import is_locked

Document = Mapping[str, Any]
"""As the API has it."""

Heard = Callable[[str, Document], None]
"""Takes `begun`, `ended`, `progress` and `task`, with what the API's stream has of them."""

PATH: Final = "/api/sync/tasks"


class TaskSource(Protocol):
    async def page(self, params: Mapping[str, str]) -> Document:
        """What `GET /api/sync/tasks` answers to this query."""

    async def logs(self, id: str) -> Document:
        """What `GET /api/sync/tasks/{id}/logs` answers."""

    async def follow(self, id: str, heard: Heard, *, progress: bool = False) -> None:
        """Each attempt as it begins and ends, until the task has ended; some may begin twice. With `progress`
        also how far it is, where somebody can tell."""


async def open_tasks(settings: Settings, say: Say) -> TaskSource:
    """Raises NoPrimary where nothing runs and nothing is left to read, and what `live.request` raises."""
    return OfPrimary(settings, say) if await primary_has(settings, PATH, say) else OfJournal(settings, say)


class OfPrimary:
    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say

    async def page(self, params: Mapping[str, str]) -> Document:
        document: Document = await live.request(self._settings, "GET", PATH, params=params)
        return document

    async def logs(self, id: str) -> Document:
        document: Document = await live.request(self._settings, "GET", _path(id))
        return document

    async def follow(self, id: str, heard: Heard, *, progress: bool = False) -> None:
        params = {"progress": "true"} if progress else None
        await Follower(
            self._settings, _path(id), lambda sent: _hear(sent, heard), self._say, params=params
        ).run()


class OfJournal:
    """Opens the file anew for each look, as it may be replaced, and never writes to it."""

    def __init__(self, settings: Settings, say: Say, *, looks: float = LOOKS) -> None:
        self._settings = settings
        self._say = say
        self._path = settings.state_dir / JOURNAL_FILE
        self._looks = looks

    async def page(self, params: Mapping[str, str]) -> Document:
        return await trio.to_thread.run_sync(self._page, params)

    async def logs(self, id: str) -> Document:
        document: Document = msgspec.to_builtins(await trio.to_thread.run_sync(self._logs, id))
        return document

    async def follow(
        self,
        id: str,
        heard: Heard,
        *,
        progress: bool = False,  # noqa: ARG002 - that is in a primary's memory alone
    ) -> None:
        """As long as somebody works on the state directory: what nobody works on any more was interrupted."""
        from reconciler.web.apis.tasks import ENDED, news_of

        seen = 0
        while True:
            try:
                is_worked_on, logs = await trio.to_thread.run_sync(self._look, id)
            except JournalUnavailable:
                await trio.sleep(self._looks)
                continue
            for each in news_of(logs, seen):
                heard(each.kind, msgspec.to_builtins(each.document))
                seen = each.number or seen
            if logs.state in ENDED:
                return
            if not is_worked_on:
                self._say(f"nothing works on {self._settings.state_dir}: the task was interrupted")
                heard("task", {"task": id, "state": "FAILED"})
                return
            await trio.sleep(self._looks)

    def _look(self, id: str) -> tuple[bool, Any]:
        # In this order: whoever ends the task does so before letting go of the directory or its own lock.
        is_worked_on = is_locked(self._settings) or is_under_way(self._settings, id)
        return is_worked_on, self._logs(id)

    def _page(self, params: Mapping[str, str]) -> Document:
        from reconciler.web.apis.tasks import TasksQuery, tasks_of, tasks_page

        with Journal(self._path, read_only=True) as journal:
            page = tasks_page(journal, msgspec.convert(dict(params), TasksQuery, strict=False))
        document: Document = msgspec.to_builtins(tasks_of(page, lambda _: None))
        return document

    def _logs(self, id: str) -> Any:
        from reconciler.web.apis.known import NotFound
        from reconciler.web.apis.tasks import task_logs

        with Journal(self._path, read_only=True) as journal:
            found = journal.task(id)
        if found is None:
            raise NotFound(f"Task {id}")
        return task_logs(found)


def _path(id: str) -> str:
    return f"{PATH}/{quote(id, safe='')}/logs"


def _hear(sent: SentEvent, heard: Heard) -> bool:
    heard(sent.event, msgspec.json.decode(sent.data))
    return sent.event == "task"
