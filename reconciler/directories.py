"""The directories on this machine that projects are synced from: what is in them, and what changed there.

A scan tells what is there, whoever asked for it. It costs a walk where nothing changed, and reads only files
that did (`sync/remembered.py`).
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import structlog
import trio

from agent.errors import PathRefused, TransferFailed
from reconciler.desired_model import DirectoryFacts, DirectoryKey, directory_key
from reconciler.desired_sync import ignore_file_path, ignore_lines
from reconciler.errors import JournalUnavailable, LookFailed, TrueupError, UnknownRevision
from reconciler.identity import project_id
from reconciler.journal import Journal
from reconciler.journal_events import NewEvent
from reconciler.mishaps import line_for_log
from reconciler.observation import Setback
from reconciler.secrets.template import MAX_TEMPLATE, decode_template
from reconciler.spec.model import Project, Spec, SyncTarget
from reconciler.status.conditions import Reason
from reconciler.sync.directory_changes import DirectoryChange, Kind, changed_owners, changes
from reconciler.sync.names import LocalNames
from reconciler.sync.remembered import Remembered
from reconciler.sync.serving import TreeSource
from reconciler.sync.source_root import open_source, read_text
from reconciler.views import for_each

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_IGNORE_FILE: Final = 1 << 20

TRIES: Final = 3
"""Scans one after the other of a directory that changes meanwhile."""

PATIENCE: Final = 10.0
"""Seconds that a pass of a running primary waits for a directory: a first look may read a lot, and a file
system may hang. Then the pass goes on without it, and another one is asked for once it was read."""

MAX_UNTOLD: Final = 100
"""Changes that are kept for the journal, the newest ones."""


class DirectoryUnsteady(TrueupError):
    """A directory that changes faster than it can be read."""

    reason = Reason.SOURCE_CHANGED
    retryable = True


@dataclass(frozen=True, slots=True)
class DirectoryLook:
    """What was found in a directory, and the tree to serve."""

    facts: DirectoryFacts
    source: TreeSource


Looks = Mapping[DirectoryKey, DirectoryLook | Setback]


@dataclass(slots=True)
class _Directory:
    """Of one project."""

    project: Project
    remembered: Remembered
    looks: dict[DirectoryKey, DirectoryLook] = field(default_factory=dict)
    """The newest that succeeded."""
    reading: trio.Event | None = None
    found: dict[DirectoryKey, DirectoryLook] | Setback = field(default_factory=dict)
    is_late: bool = False
    """Some pass went on without it."""


class Directories:
    """Of the projects of whatever spec is looked at. `private`: places that are never sent."""

    def __init__(
        self,
        in_background: Callable[..., None],
        private: tuple[Path, ...],
        *,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._in_background = in_background
        self._private = tuple(os.path.realpath(path) for path in private)
        self._now = now
        self._names = LocalNames()
        self._known: dict[str, _Directory] = {}
        self._changes: list[DirectoryChange] = []
        self.on_late: Callable[[str], None] = lambda _resource: None
        """Called with the id of a project whose directory was read after a pass had gone on without it."""

    async def look(self, spec: Spec, *, patience: float = inf) -> Looks:
        """What is in the directories of all projects that have one, by what goes to which targets."""
        wanted = {
            project.id: project
            for project in spec.projects.values()
            if project.source is not None
            and not project.suspend
            and project.sync.enabled
            and project.sync.targets
        }
        for gone in self._known.keys() - wanted.keys():
            del self._known[gone]
        looks: dict[DirectoryKey, DirectoryLook | Setback] = {}

        async def look(project: Project) -> None:
            found = await self._look(project, patience)
            for target in project.sync.targets:
                key = directory_key(project, target)
                looks[key] = found if isinstance(found, Setback) else found[key]

        await for_each(look, [(project,) for project in wanted.values()])
        return looks

    def take_changes(self) -> list[DirectoryChange]:
        """What changed in all of them since this was asked the last time, as far as it was seen."""
        taken, self._changes = self._changes, []
        return taken

    async def _look(self, project: Project, patience: float) -> dict[DirectoryKey, DirectoryLook] | Setback:
        known = self._known.get(project.id)
        if known is None or known.project.source != project.source:
            known = self._known[project.id] = _Directory(project, Remembered(self._now, self._names))
        with trio.move_on_after(patience):
            while True:
                if known.reading is None:
                    known.project, known.reading = project, trio.Event()
                    self._in_background(self._read, known)
                of, ended = known.project, known.reading
                await ended.wait()
                if of == project:  # otherwise it was begun with other rules
                    return known.found
        known.is_late = True
        assert project.source is not None
        message = f"the directory {project.source.directory} is still being read; targets stay as they are"
        return Setback(Reason.PROGRESSING, message, unknown=True)

    async def _read(self, known: _Directory) -> None:
        """In the background; must not raise."""
        assert known.reading is not None
        try:
            known.found = await self._scan(known)
        except TrueupError as error:
            known.found = Setback.of(error)
        except Exception as error:
            log.error("a directory could not be read", project=known.project.id, error=line_for_log(error))
            known.found = Setback(Reason.INTERNAL_ERROR, line_for_log(error), unknown=True)
        finally:
            was_late, known.is_late = known.is_late, False
            known.reading.set()
            known.reading = None
        if was_late:
            self.on_late(project_id(known.project))

    async def _scan(self, known: _Directory) -> dict[DirectoryKey, DirectoryLook]:
        project = known.project
        assert project.source is not None
        fd = await trio.to_thread.run_sync(open_source, project.source.directory, self._private)
        try:
            for _ in range(TRIES):
                try:
                    found = await self._scan_open(known, fd)
                except TransferFailed as error:
                    why = error.message
                else:
                    break
            else:
                raise DirectoryUnsteady(
                    f"{project.source.directory} changes while it is read ({why}); it is looked at again",
                    hint="write files under other names, and rename them when they are whole",
                )
        finally:
            os.close(fd)
        known.remembered.forget()
        self._note(known, found)
        known.looks = found
        return found

    async def _scan_open(self, known: _Directory, fd: int) -> dict[DirectoryKey, DirectoryLook]:
        project = known.project
        assert project.source is not None
        directory = project.source.directory
        ignore = await _ignore_of(project, fd)
        templates = await _templates_of(project, fd)
        found: dict[DirectoryKey, DirectoryLook] = {}
        empty: list[SyncTarget] = []
        for target in project.sync.targets:
            key = directory_key(project, target)
            if key in found:
                continue
            rules = project.sync
            memory = known.remembered.of(
                (ignore, key, _reserved(project), rules.ignore_permissions, rules.owners)
            )
            try:
                source = await TreeSource.build(
                    Path(directory),
                    ignore=ignore,
                    include=target.include,
                    exclude=target.exclude,
                    reserved=_reserved(project),
                    ignore_permissions=rules.ignore_permissions,
                    owners=rules.owners == "names",
                    root_fd=fd,
                    remembered=memory,
                )
            except PathRefused as error:
                # A name that is no text is shown escaped; only with its directory can it be found.
                raise PathRefused(f"in {directory}, {error.message}", hint=error.hint) from error
            memory.keep(source)
            if not source.entries:
                empty.append(target)
            facts = DirectoryFacts(source.digest, ignore, templates, source.owners)
            found[key] = DirectoryLook(facts, source)
        if empty:
            # All targets are told this, so it names none of their nodes.
            by_rules = "" if len(empty) == len(found) else _rules_of(empty[0])
            raise LookFailed(
                f"{directory} holds nothing that would be synced{by_rules}, and nothing is deleted for that:"
                " is it mounted, and was it built?"
            )
        return found

    def _note(self, known: _Directory, found: Mapping[DirectoryKey, DirectoryLook]) -> None:
        project = known.project
        kinds: dict[str, Kind] = {}
        assert project.source is not None
        for key, look in found.items():
            before = known.looks.get(key)
            if before is not None and before.facts.digest != look.facts.digest:
                modes = not project.sync.ignore_permissions
                changed = changes(before.source.entries, look.source.entries, modes=modes)
                # Names stand in the order of the entries: with the same paths, the same names are no change.
                may_differ = before.source.owned != look.source.owned or {*changed.values()} - {"changed"}
                if may_differ and before.source.owners and look.source.owners:
                    kinds |= changed_owners(before.source.names(), look.source.names())
                kinds |= changed
        if kinds:
            change = DirectoryChange(project_id(project), project.source.directory, kinds)
            self._changes = [*self._changes, change][-MAX_UNTOLD:]


def _rules_of(target: SyncTarget) -> str:
    """What lets a target have another tree than others of its project, in words, if anything does."""
    rules = {"include": target.include, "exclude": target.exclude}
    said = [f"{name} {', '.join(lines)}" for name, lines in rules.items() if lines]
    return f" with {' and '.join(said)}" if said else ""


async def record_changes(directories: Directories, journal: Journal) -> None:
    """Tell the journal what changed, under the trace of the pass that acts on it."""
    events = [
        NewEvent("source", change.resource, Reason.SOURCE_CHANGED, str(change))
        for change in directories.take_changes()
    ]
    for event in events:
        log.info("a directory changed", resource=event.resource, what=event.message)
    with suppress(JournalUnavailable):  # history alone
        await trio.to_thread.run_sync(journal.record_events, events)


def warnings_of(looks: Looks) -> list[tuple[str, tuple[str, ...]]]:
    """What is not sent of directories, by the projects that have them."""
    return [(key[0], look.source.warnings) for key, look in looks.items() if isinstance(look, DirectoryLook)]


def _reserved(project: Project) -> tuple[str, ...]:
    return tuple(file.path for file in project.files)


async def _ignore_of(project: Project, fd: int) -> tuple[str, ...]:
    if project.sync.ignore_file is None:
        return ignore_lines(project, "")
    assert project.source is not None
    path = ignore_file_path(project)
    content = await trio.to_thread.run_sync(partial(read_text, fd, path, max_size=MAX_IGNORE_FILE))
    if content is None:
        raise UnknownRevision(
            f"`{path}` does not exist in {project.source.directory}; correct sync.ignore_file"
        )
    return ignore_lines(project, content.decode(errors="replace"))


async def _templates_of(project: Project, fd: int) -> dict[str, str | Setback | None]:
    found: dict[str, str | Setback | None] = {}
    for path in sorted({file.template for file in project.files if file.template is not None}):
        try:
            content = await trio.to_thread.run_sync(partial(read_text, fd, path, max_size=MAX_TEMPLATE))
            found[path] = None if content is None else decode_template(path, content)
        except TrueupError as error:
            found[path] = Setback.of(error)
    return found
