"""`trueup get -w`: the status files, then each row that changes, as soon as git has it.

What is shown is read from git, by whoever may read it there, with its signature checked. A running primary
only says when to look, and how far its tasks are; without one, git is asked now and then.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec
import trio

from reconciler import live
from reconciler.console import STATUS_COLUMNS, status_row
from reconciler.console_rows import Printed, say
from reconciler.errors import TrueupError
from reconciler.live_streams import Follower
from reconciler.primary import open_repositories, open_status
from reconciler.selecting import Selection, known_selection
from reconciler.sent_events import SentEvent
from reconciler.settings import Settings
from reconciler.status.documents import Recorded
from reconciler.watch_progress import Shown, watch_progress

EVERY: Final = 10.0
"""Seconds between two looks at git where no primary says when."""

PATH: Final = "/api/status"


async def watch_status(
    settings: Settings, resource: str | None, output: str, *, progress: bool = False, every: float = EVERY
) -> NoReturn:
    """Goes on until it is interrupted. Raises what the first look raises; later ones are done again.

    On a terminal, and with `progress` elsewhere too, how far tasks are is shown as well.
    """
    wanted = known_selection(resource) if resource is not None else None
    repositories = open_repositories(settings)
    branch, mirror = open_status(settings, repositories), repositories.mirror(settings.require_status_repo())
    await mirror.refresh()
    shown = Shown(wanted, output, progress)
    rows = Rows(wanted, output, shown.bars.clear)
    if not rows.show(await branch.read()):
        say(f"no status of {resource} yet" if resource is not None else "no status yet")
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, settings, bell, every)
        if shown.is_wanted:
            nursery.start_soon(watch_progress, settings, shown)
        troubled = False
        while True:
            await bell.wait(every)
            try:
                await mirror.refresh()
                rows.show(await branch.read())
            except TrueupError as error:
                if not error.retryable:
                    raise
                if not troubled:
                    say(f"{error}; trying again")
                troubled = True
            else:
                troubled = False


class Bell:
    """Rung when there is something to look at; rung while nobody waits, it is heard afterwards."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, patience: float) -> None:
        """Until it is rung, `patience` seconds at most."""
        with trio.move_on_after(patience):
            await self._rung.wait()
        self._rung = trio.Event()


async def _listen(settings: Settings, bell: Bell, every: float) -> None:
    """Ring whenever the primary says that the branch has moved. Where it cannot, the interval does."""

    def moved(_sent: SentEvent) -> bool:
        bell.ring()
        return False

    try:
        if await live.request_if_running(settings, "GET", PATH) is not None:
            await Follower(settings, PATH, moved, say).run()
        say(f"no primary is running here: git is looked at every {every:g} s")
    except TrueupError as error:
        say(f"{error}; git is looked at every {every:g} s")


class Rows:
    """What was shown of each resource; what is as it was is not shown again."""

    def __init__(
        self, wanted: Selection | None, output: str, before: Callable[[], None] = lambda: None
    ) -> None:
        """`before`: called when something is about to be printed."""
        self._wanted = wanted
        self._before = before
        self._is_table = output == "table"
        self._printed = Printed(output, *STATUS_COLUMNS)
        self._shown: Mapping[str, Any] = {}

    def show(self, recorded: Recorded) -> bool:
        """Print what is new, different or gone; False: there is nothing at all."""
        now = {
            document.id: status_row(document) if self._is_table else msgspec.to_builtins(document)
            for document in sorted(recorded.documents(), key=lambda document: document.id)
            if self._wanted is None or self._wanted.has(document.id)
        }
        changed = [row for id, row in now.items() if self._shown.get(id) != row]
        changed += [self._gone(id) for id in self._shown if id not in now]
        self._shown = now
        if changed:
            self._before()
        self._printed.add(changed, tuple, lambda document: document)
        return bool(now)

    def _gone(self, id: str) -> Any:
        if self._is_table:
            return (id, "", "", "", "gone: nothing is recorded of it any more")
        return {"id": id, "removed": True}
