"""Bars on a terminal over what is under way: the steps of a pass, and how far each of its tasks is."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import trio
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from reconciler.apply import Outcome
from reconciler.logs import printable
from reconciler.plan import Plan, Step
from reconciler.progress import Progress, in_words, share_of, size

EVERY: Final = 0.5
"""Seconds between two looks at how far tasks are."""


class Pace(ProgressColumn):
    """How much is done, and of what is counted in bytes how fast that goes and how long it will take."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        told = f"{task.percentage:.0f} %"
        if task.fields["in_bytes"] and task.speed and not task.finished:
            told += f", {size(int(task.speed))}/s"
            if task.time_remaining is not None:
                told += f", {timedelta(seconds=int(task.time_remaining))} left"
        return Text(told, no_wrap=True)


def _as_wide_as_it_may(share: int) -> Column:
    return Column(ratio=share, no_wrap=True, overflow="ellipsis")


class Bars:
    """Lines at the foot of a terminal; elsewhere nothing is shown."""

    def __init__(self, *, shown: bool = True) -> None:
        self._rich = RichProgress(
            # Where it is narrow the ends of names and words are left out, rather than the pace.
            TextColumn("{task.description}", markup=False, table_column=_as_wide_as_it_may(1)),
            BarColumn(bar_width=8),
            Pace(),
            TextColumn("{task.fields[told]}", markup=False, table_column=_as_wide_as_it_may(2)),
            console=Console(stderr=True, highlight=False),
            expand=True,
            transient=True,
            disable=not shown or not sys.stderr.isatty(),
        )
        self._ids: dict[str, TaskID] = {}

    def line(self, key: str, *, about: str, done: int, total: int, told: str, in_bytes: bool = False) -> None:
        """Show a line, or what it has come to. A `total` of 0 is not known: the bar moves to and fro."""
        if key not in self._ids:
            self._ids[key] = self._rich.add_task("", total=None, told="", in_bytes=False)
        self._rich.update(
            self._ids[key],
            description=printable(about),
            completed=done,
            total=total or None,
            told=printable(told),
            in_bytes=in_bytes,
        )
        self._rich.start()

    def show(self, running: Sequence[Progress]) -> None:
        """One line for each of these tasks, and none for others."""
        for progress in running:
            done, total = share_of(progress)
            self.line(
                progress.task,
                about=progress.resource,
                done=done,
                total=total,
                told=in_words(progress),
                in_bytes=bool(progress.bytes_total),
            )
        for key in self._ids.keys() - {progress.task for progress in running} - {STEPS}:
            self._rich.remove_task(self._ids.pop(key))

    def clear(self) -> None:
        """Take the lines away, so that others can be printed."""
        self._rich.stop()


STEPS: Final = "steps"


class PassProgress:
    """The steps of a pass and its tasks, where a terminal is attached; elsewhere the log tells."""

    def __init__(self, *, shown: bool = True) -> None:
        self._bars = Bars(shown=shown)
        self._running: dict[str, Step] = {}
        self._done = self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.clear()

    def expect(self, plan: Plan) -> None:
        self._total = len(plan.steps)
        self._done = 0
        if plan.steps:
            self._show()

    def __call__(self, step: Step, outcome: Outcome | None) -> None:
        if outcome is None:
            self._running[step.resource] = step
        else:
            self._running.pop(step.resource, None)
            self._done += 1
        self._show()

    def _show(self) -> None:
        about = ", ".join(self._running) or "applying"
        self._bars.line(
            STEPS, about=about, done=self._done, total=self._total, told=f"{self._done}/{self._total}"
        )

    async def follow(self, tasks: Callable[[], Sequence[Progress]]) -> None:
        """Show how far tasks are, for ever."""
        while True:
            self._bars.show(tasks())
            await trio.sleep(EVERY)


def progress_in(document: Mapping[str, Any], task: str) -> Progress:
    """As the API tells it of a task that is followed."""
    return Progress(
        task,
        document["attempt"],
        document["totalBytes"],
        document["sentBytes"],
        document["receivedBytes"],
        resource=f"attempt {document['attempt']}",
        phase=document["phase"],
        files_done=document["filesDone"],
        files_total=document["filesTotal"],
        bytes_done=document["bytesDone"],
        bytes_total=document["bytesTotal"],
        still_seconds=document["stillSeconds"],
    )
