"""`trueup logs`: what the attempts of a task printed, and where asked what they print until it has ended."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

from reconciler.console import SHORT_ID, print_document
from reconciler.console_progress import Bars, progress_in
from reconciler.console_rows import GrowingTable, Printed, say
from reconciler.errors import SettingsError
from reconciler.exit_codes import ExitCode
from reconciler.logs import printable
from reconciler.selecting import Selection, known_selection
from reconciler.settings import Settings
from reconciler.task_source import Document, TaskSource, open_tasks

SOME: Final = 20
"""Tasks that are listed where none is named."""

PAGE: Final = 500
SHOWN: Final = 3


async def show_logs(
    settings: Settings, output: str, *, task: str | None, attempt: int | None, follow: bool
) -> int:
    """The exit code: of a task that is followed, 0 where it succeeded."""
    source = await open_tasks(settings, say)
    if task is None:
        await _list(source, output)
        return ExitCode.DONE
    id = await find_task(source, task)
    if follow:
        heard = Heard(output, attempt)
        try:
            await source.follow(id, heard, progress=sys.stderr.isatty())
        finally:
            heard.bars.clear()
        return ExitCode.DONE if heard.state == "SUCCESS" else ExitCode.FAILED
    logs = await source.logs(id)
    attempts = [each for each in logs["attempts"] if attempt is None or each["number"] == attempt]
    if attempt is not None and not attempts:
        raise SettingsError(
            f"task {id[:SHORT_ID]} has no attempt {attempt}", hint=f"it has had {len(logs['attempts'])}"
        )
    if output != "table":
        print_document({"version": 1, **logs, "attempts": attempts}, output)
        return ExitCode.DONE
    for each in attempts:
        _print(each)
    if not attempts:
        say(f"task {id[:SHORT_ID]} has not begun yet")
    return ExitCode.DONE


async def _list(source: TaskSource, output: str) -> None:
    tasks = (await source.page({"limit": str(SOME)}))["tasks"]
    if output != "table":
        print_document({"version": 1, "tasks": tasks}, output)
        return
    GrowingTable("TASK", "STATE", "CREATED", "NODE", "RESOURCE").add([
        (task["id"][:SHORT_ID], task["state"], f"{task['createdAt'][:19]}Z", task["node"], task["resource"])
        for task in tasks
    ])  # fmt: skip
    if not tasks:
        say("no tasks yet")


async def find_task(source: TaskSource, named: str) -> str:
    """The id of the task that is meant: by the beginning of its id, or the newest one of a resource.

    Raises SettingsError where there is none, or more than one.
    """
    if "/" in named:
        return await _latest(source, known_selection(named))
    tasks = (await source.page({"id": named, "limit": str(SHOWN + 1)}))["tasks"]
    if not tasks:
        raise SettingsError(f"there is no task {named}", hint="`trueup logs` lists the newest ones")
    ids = [task["id"] for task in tasks]
    if len(ids) > 1 and named not in ids:
        shown = ", ".join(id[: max(SHORT_ID, len(named) + 2)] for id in ids[:SHOWN])
        more = " and others" if len(ids) > SHOWN else ""
        raise SettingsError(f"several tasks begin with {named}: {shown}{more}", hint="give more of the id")
    return named if named in ids else str(ids[0])


async def _latest(source: TaskSource, wanted: Selection) -> str:
    by_node = wanted.kind == "nodes"
    if by_node:  # its installation, where there was one
        own = (await source.page({"resource": f"nodes/{wanted.name}", "limit": "1"}))["tasks"]
        if own:
            return str(own[0]["id"])
    params = {"node": wanted.name} if by_node else {"resource": wanted.kind}
    before: str | None = ""
    while before is not None:
        page = await source.page({**params, "limit": str(1 if by_node else PAGE), "before": before})
        for task in page["tasks"]:
            if by_node or wanted.has(task["resource"]):
                return str(task["id"])
        before = page["next"]
    raise SettingsError(f"there is no task of {wanted}", hint="`trueup logs` lists the newest ones")


@dataclass
class Heard:
    """Prints what is heard of a task that is followed, each attempt once, and keeps how it ended."""

    output: str
    attempt: int | None
    state: str = ""
    bars: Bars = field(default_factory=Bars)
    _begun: set[int] = field(default_factory=set)
    _printed: Printed = field(init=False)

    def __post_init__(self) -> None:
        self._printed = Printed(self.output)

    def __call__(self, event: str, document: Document) -> None:
        if event == "progress":
            self.bars.show([progress_in(document, "followed")])
            return
        self.bars.clear()
        if event == "task":
            self.state = document["state"]
            say(f"task {document['task'][:SHORT_ID]}: {self.state}")
        elif self.attempt not in (None, document["number"]):
            return
        elif event == "begun":
            if document["number"] not in self._begun:
                say(f"attempt {document['number']} is under way")
            self._begun.add(document["number"])
        elif self.output == "table":
            _print(document)
        else:
            self._printed.add([document], lambda _: (), dict)


def _print(attempt: Mapping[str, Any]) -> None:
    """A line on the attempt, then what it printed; nothing in it acts on a terminal."""
    for line in lines_of(attempt):
        click.echo(line)


def lines_of(attempt: Mapping[str, Any]) -> Sequence[str]:
    number, state = attempt["number"], attempt["state"]
    if not attempt["endedAt"]:
        return (f"attempt {number}: {state} since {attempt['beganAt'][:19]}Z",)
    head = f"attempt {number}: {state} at {attempt['endedAt'][:19]}Z"
    why = f", {attempt['reason']}: {attempt['message']}" if attempt["reason"] else ""
    # A carriage return would let one line hide another.
    printed = [line for line in attempt["log"].split("\n") if line]
    return [printable(head + why), *(printable(line, keep="\t") for line in printed)]
