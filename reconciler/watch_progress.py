"""How far the tasks of a running primary are, for `trueup get -w`: asked of the API again and again."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import trio

from reconciler import live
from reconciler.console_progress import Bars, progress_in
from reconciler.console_rows import Printed, say
from reconciler.errors import TrueupError
from reconciler.logs import printable
from reconciler.progress import Progress, in_words
from reconciler.selecting import Selection
from reconciler.settings import Settings
from reconciler.task_source import PATH, Document

MOST: Final = 500
"""Tasks that are asked for."""

BUSY: Final = 1.0
IDLE: Final = 3.0
"""Seconds between two questions, while something is under way and while nothing is."""

LINES: Final = 10.0
"""Seconds between two lines on one task where no terminal is that they could be drawn on."""


@dataclass
class Shown:
    """Where progress is shown: on a terminal as bars, and else, if it is `asked` for, as lines or documents.

    `documents` of a task are `id`, its resource, `task`, and `progress` as the API has it.
    """

    wanted: Selection | None
    output: str
    asked: bool
    bars: Bars = field(default_factory=Bars)
    _last: dict[str, Any] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)
    _printed: Printed = field(init=False)

    def __post_init__(self) -> None:
        self._printed = Printed(self.output)

    @property
    def is_wanted(self) -> bool:
        return self.asked or sys.stderr.isatty()

    def show(self, tasks: list[Document], now: float) -> None:
        running = {
            task["id"]: task for task in tasks if task["progress"] is not None and self._is_meant(task)
        }
        if sys.stderr.isatty() and (self.output == "table" or not self.asked):
            self.bars.show([_progress(task) for task in running.values()])
            if not running:
                self.bars.clear()
        elif self.asked and self.output == "table":
            self._say(running, now)
        elif self.asked:
            changed = [task for id, task in running.items() if self._last.get(id) != task["progress"]]
            self._printed.add(changed, lambda _: (), _document)
        self._last = {id: task["progress"] for id, task in running.items()}

    def _is_meant(self, task: Document) -> bool:
        wanted = self.wanted
        if wanted is None or wanted.has(task["resource"]):
            return True
        return wanted.kind == "nodes" and wanted.name in ("", task["node"])

    def _say(self, running: Mapping[str, Document], now: float) -> None:
        due = {id for id in running if now - self._said.get(id, now - LINES) >= LINES}
        for task in (running[id] for id in due if self._last.get(id) != running[id]["progress"]):
            say(printable(f"{task['resource']}: {in_words(_progress(task)) or 'has begun'}"))
            self._said[task["id"]] = now
        self._said = {id: at for id, at in self._said.items() if id in running}


async def watch_progress(settings: Settings, shown: Shown) -> None:
    """For ever. Where no primary answers nothing is shown: that is said by whoever listens for its word."""
    while True:
        tasks: list[Document] = []
        try:
            params = {"state": "RUNNING", "limit": str(MOST)}
            answer = await live.request_if_running(settings, "GET", PATH, params=params)
            tasks = answer["tasks"] if answer is not None else []
        except TrueupError:
            pass
        shown.show(tasks, trio.current_time())
        await trio.sleep(BUSY if tasks else IDLE)


def _progress(task: Document) -> Progress:
    return replace(progress_in(task["progress"], task["id"]), resource=task["resource"])


def _document(task: Document) -> Any:
    return {"id": task["resource"], "task": task["id"], "progress": task["progress"]}
