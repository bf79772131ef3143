"""Watches the directories whose projects say `watch: true`, and asks for a pass of those projects alone.

What the kernel tells is only a reason to look: a scan says what changed, and the pass at each interval looks
whatever was told. So a directory that cannot be watched, and a change that nobody heard of, only take longer.
"""

import math
import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Protocol

import structlog
import trio

from agent.backoff import Backoff
from agent.failures import single
from agent.ignore import Ignore
from reconciler.desired_sync import ignore_lines
from reconciler.errors import JournalUnavailable, TrueupError
from reconciler.identity import project_id
from reconciler.journal_events import NewEvent
from reconciler.mishaps import line_for_log
from reconciler.primary import Primary
from reconciler.spec.model import Project, Spec
from reconciler.status.conditions import Reason

log: structlog.stdlib.BoundLogger = structlog.get_logger()

QUIET_MS: Final = 100
"""Milliseconds without a change after which a change is told: files come in groups."""

LONGEST_MS: Final = 2000
"""Milliseconds after which a change is told though more come."""

FIRST: Final = 1.0
LONGEST: Final = 60.0
"""Seconds between two passes that one directory asks for: the first, when it asks seldom, up to the second,
when it always changes."""

AGAIN: Final = 2.0
"""Seconds until a directory that is not there is looked for again."""

UNWATCHABLE: Final = 300.0
"""Seconds until watching is tried again where it failed."""

_NO_TEXT: Final = "Unable to decode path"
"""How the library says that something changed whose name is not UTF-8. It hears nothing from then on."""

MAX_WATCHED: Final = 100
"""Directories; each takes a thread. More are left to the pass at each interval."""


class _Ask(Protocol):
    def __call__(self, why: str, *, resources: Collection[str]) -> None: ...


def watched(spec: Spec) -> dict[str, tuple[Project, ...]]:
    """By directory, the projects that want to hear of it at once."""
    found: dict[str, tuple[Project, ...]] = {}
    for project in spec.projects.values():
        source = project.source
        if source is None or not source.watch or project.suspend or not project.sync.enabled:
            continue
        if source.directory in found or len(found) < MAX_WATCHED:
            found[source.directory] = (*found.get(source.directory, ()), project)
    return found


def concerned(projects: Collection[Project], directory: str, paths: Collection[str]) -> tuple[Project, ...]:
    """The projects to which one of these paths matters, as far as their own patterns say."""
    below = [os.path.relpath(path, directory) for path in paths]
    found: list[Project] = []
    for project in projects:
        try:
            ignore = Ignore(ignore_lines(project, ""))
        except TrueupError:
            continue  # the pass says so
        if any(path == "." or not ignore.covers(path, False) for path in below):
            found.append(project)
    return tuple(found)


class Restarts:
    """How long to wait before watching begins anew: not at all, unless it did so just before. Pure."""

    def __init__(self) -> None:
        self._backoff = Backoff(first=FIRST, longest=LONGEST)
        self._calm_at = -math.inf

    def pause(self, now: float) -> float:
        """In seconds, as of `now`."""
        pause = 0.0
        if now < self._calm_at:
            pause = self._backoff.next()
        else:
            self._backoff.reset()
        self._calm_at = now + pause + 5 * max(pause, FIRST)
        return pause


@dataclass(slots=True)
class _Watch:
    projects: tuple[Project, ...]
    scope: trio.CancelScope


class DirectoryWatch:
    """Of one running primary, for the spec that its last pass worked with."""

    def __init__(self, primary: Primary, ask: _Ask) -> None:
        self._primary = primary
        self._ask = ask
        self._watches: dict[str, _Watch] = {}
        self._troubled: set[str] = set()
        """Directories of which was told that they cannot be watched."""
        self._threads = trio.CapacityLimiter(MAX_WATCHED)

    async def run(self) -> NoReturn:
        bulletin = self._primary.bulletin
        async with trio.open_nursery() as nursery:
            while True:
                version = bulletin.version
                spec = self._primary.spec
                if spec is not None:
                    self._adjust(watched(spec), nursery)
                await bulletin.wait_newer(version)
        raise AssertionError("unreachable")

    def _adjust(self, wanted: Mapping[str, tuple[Project, ...]], nursery: trio.Nursery) -> None:
        for directory in self._watches.keys() - wanted.keys():
            self._watches.pop(directory).scope.cancel()
            self._troubled.discard(directory)
        for directory, projects in wanted.items():
            known = self._watches.get(directory)
            if known is not None:
                known.projects = projects
                continue
            watch = self._watches[directory] = _Watch(projects, trio.CancelScope())
            nursery.start_soon(self._keep_watching, directory, watch)

    async def _keep_watching(self, directory: str, watch: _Watch) -> None:
        restarts = Restarts()
        with watch.scope:
            while True:
                try:
                    identity = await trio.to_thread.run_sync(_identity, directory)
                    if identity is not None:
                        await self._watch(directory, identity, watch)
                except Exception as error:
                    why = _why(error)
                    if why.startswith(_NO_TEXT):
                        # A change like any other: a pass is asked for once it is watched again.
                        log.debug("a directory has to be watched anew", directory=directory, error=why)
                        await trio.sleep(restarts.pause(trio.current_time()))
                        continue
                    await self._cannot(directory, watch, why)
                    await trio.sleep(UNWATCHABLE)
                else:
                    await trio.sleep(AGAIN if identity is None else 0)

    async def _watch(self, directory: str, identity: tuple[int, int], watch: _Watch) -> None:
        """Until another directory is at its place."""
        from watchfiles._rust_notify import RustNotify  # the documented interface beneath `watchfiles.watch`

        stop = threading.Event()
        make = partial(RustNotify, [directory], False, False, 0, True, True)
        notify = await trio.to_thread.run_sync(make, limiter=self._threads)
        try:
            if directory in self._troubled:
                self._troubled.discard(directory)
                log.info("a directory is watched again", directory=directory)
            # Nobody watched until now.
            log.debug("a directory is watched", directory=directory)
            self._ask_for(f"{directory} is watched from now on", watch.projects)
            changed: dict[str, Project] = {}
            dirty = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, directory, changed, lambda: dirty)
                listen = partial(notify.watch, LONGEST_MS, QUIET_MS, 0, stop)
                while True:
                    heard = await trio.to_thread.run_sync(
                        listen, abandon_on_cancel=True, limiter=self._threads
                    )
                    if isinstance(heard, str):
                        raise OSError(f"watching ended: {heard}")
                    found = concerned(watch.projects, directory, [path for _, path in heard])
                    changed |= {project.id: project for project in found}
                    if found:
                        dirty.set()
                        dirty = trio.Event()
                    if await trio.to_thread.run_sync(_identity, directory) != identity:
                        self._ask_for(f"another {directory} is there, or none", watch.projects)
                        nursery.cancel_scope.cancel()
                        return
        finally:
            stop.set()
            notify.close()

    async def _tell(
        self, directory: str, changed: dict[str, Project], heard: Callable[[], trio.Event]
    ) -> NoReturn:
        backoff = Backoff(first=FIRST, longest=LONGEST)
        calm_at = trio.current_time()
        while True:
            while not changed:
                await heard().wait()
            if trio.current_time() >= calm_at:
                backoff.reset()
            projects = tuple(changed.values())
            changed.clear()
            self._ask_for(f"{directory} changed", projects)
            pause = backoff.next()
            calm_at = trio.current_time() + 5 * pause
            await trio.sleep(pause)

    def _ask_for(self, why: str, projects: Collection[Project]) -> None:
        if projects:
            self._ask(why, resources=[project_id(project) for project in projects])

    async def _cannot(self, directory: str, watch: _Watch, why: str) -> None:
        if directory in self._troubled:
            return
        self._troubled.add(directory)
        message = f"{directory} cannot be watched ({why}); the pass at each interval finds what changes there"
        log.warning("a directory cannot be watched", directory=directory, error=why)
        events = [
            NewEvent("unwatched", project_id(project), Reason.WATCH_FAILED, message)
            for project in watch.projects
        ]
        with suppress(JournalUnavailable):  # history alone
            await trio.to_thread.run_sync(self._primary.journal.record_events, events)


def _why(error: Exception) -> str:
    """In words; the library has errors of its own besides the system's."""
    cause = single(error) if isinstance(error, BaseExceptionGroup) else error
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(cause) if isinstance(cause, RuntimeError) else line_for_log(error)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = Path(directory).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
