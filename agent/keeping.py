"""What a task keeps of its target for the next one: the manifest, and beside it what a look has found."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from agent.changes import Changes
from agent.errors import TrueupError
from agent.features import times_count
from agent.glance import Glance, Rows
from agent.lateness import late_in
from agent.ledger import Ledger
from agent.ledger_file import load_with_ledger
from agent.look import Scope, View, observed_entries
from agent.manifest import Manifest, Placed, load, save, with_rendered
from agent.noted import noted, still_says
from agent.ownership import NOBODY, Names
from agent.recall import Recalled, remember, remember_changes, remember_placed
from agent.record import Recorded, established, record
from agent.scan import Found
from agent.target import Target, undo_making
from agent.wire.messages import Task
from agent.writer import Writer


class Keeper:
    """Of one task. `path` is where the manifest is kept.

    `names` says whose the entries are; `made`, whether this task has made the target's directory;
    `made_above` has what it made above rendered files.
    """

    def __init__(self, task: Task, path: Path) -> None:
        self._task = task
        self.path = path
        self.manifest: Manifest | None = None
        self.names: Mapping[str, Names] = NOBODY
        self.made = False
        self.made_above: set[str] = set()
        self._before = False

    async def load(self) -> Manifest | None:
        """Raises TaskFailed for one that is no use."""
        return await self._hold(partial(load, self.path))

    async def _hold(self, read: Callable[[], Manifest | None]) -> Manifest | None:
        self.manifest = await trio.to_thread.run_sync(read)
        self._before = self.manifest is not None
        return self.manifest

    async def load_ledger(self, glance: Glance, rows: Rows) -> Ledger | None:
        """The same, listed in a ledger, which comes back; `glance` has just seen `rows`."""
        task = self._task
        modes, times = not task.ignore_permissions, times_count(task)

        def late(manifest: Manifest) -> frozenset[str]:
            return late_in(manifest, rows) if times else frozenset()

        read = partial(load_with_ledger, self.path, glance, modes=modes, times=times, late=late)
        manifest = await self._hold(read)
        listed = manifest.placed if manifest is not None else None
        return listed if isinstance(listed, Ledger) else None

    async def undo(self, target: Target, roots: Sequence[str]) -> None:
        """Where nothing has come of the task, takes away what it made for the target, and the record of that.

        What can't be taken away stays, as it did no harm before.
        """

        def work() -> None:
            with contextlib.suppress(OSError, TrueupError):
                if undo_making(target, roots) and not self._before:
                    self.path.unlink(missing_ok=True)

        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work)

    async def save(
        self,
        target: Target,
        placed: Collection[Placed],
        *,
        changes: Changes | None = None,
        after_due: bool,
        tree: bytes = b"",
    ) -> None:
        """`changes` are about to be made."""
        task, root = self._task, target.identity
        names, above, made = self.names, frozenset(self.made_above), self.made

        def note(before: Manifest | None) -> Manifest:
            pending, deleting = (changes.placed(), changes.removed()) if changes is not None else ((), ())
            manifest = noted(
                task,
                root,
                placed,
                pending=pending,
                deleting=deleting,
                after_due=after_due,
                tree=tree,
                names=names,
            )
            paths = [file.path for file in task.rendered]
            return with_rendered(manifest, before, rendered=paths, above=above, made=made)

        self.manifest = await trio.to_thread.run_sync(note, self.manifest)
        write = partial(save, self.path, self.manifest, durable=task.durability != "none")
        await trio.to_thread.run_sync(write)

    async def refresh(self, target: Target, view: View, scope: Scope, observed: bytes) -> None:
        """Saves what a look has found out, so that the next one need not read it again."""
        edits = view.edited if scope.keep_edits else frozenset()
        said = still_says(self.manifest, self._task, target.identity)

        def look() -> tuple[Collection[Placed], bytes] | None:
            """None where the manifest says it already. Nobody else has this view."""
            noted_edits = {path for path, placed in view.ours.items() if placed.kept}
            if said and not view.files_read and noted_edits == edits:
                return None
            index = observed_entries(view, scope)
            recorded = record(target.fd, index, view, Writer(target.fd, view.found), edits)
            # What went since it was seen is not recorded, so its digest would be that of another list.
            return established(recorded.placed, index, observed, self._task.ignore_permissions)

        if (found := await trio.to_thread.run_sync(look)) is not None:
            placed, tree = found
            await self.save(target, placed, after_due=False, tree=tree)

    async def remember(self, view: View, scope: Scope, foreign: int) -> None:
        """Keeps what a close look has found, so that a glance will do the next time."""
        if self.manifest is not None:
            await trio.to_thread.run_sync(remember, self.path, self.manifest, scope, view, foreign)

    async def remember_placed(
        self, view: View, scope: Scope, recorded: Recorded, gone: Mapping[str, Found | None]
    ) -> None:
        """The same for what a task has left of what it saw."""
        view.ours = {}  # what was ours before is the larger part of what is held by now
        if self.manifest is not None:
            rendered = [file.path for file in self._task.rendered]
            known = self.path, self.manifest, scope, view
            await trio.to_thread.run_sync(remember_placed, *known, recorded, gone, rendered)

    async def remember_changes(
        self,
        view: View,
        recalled: Recalled,
        foreign: int,
        recorded: Recorded,
        gone: Mapping[str, Found | None],
    ) -> None:
        """The same for a task that saw by a glance what it had nothing to do with."""
        if self.manifest is not None:
            known = self.path, self.manifest, recalled, foreign
            await trio.to_thread.run_sync(remember_changes, *known, recorded, gone, view)
