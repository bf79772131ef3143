"""One task from its message to its report: look, compare, fetch, place, remember, run what comes after."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from msgspec.structs import replace

from agent import rendered
from agent.apply import Application, set_time
from agent.backups import told_of_edits
from agent.changes import Changes
from agent.commands import run_after
from agent.concern import Concern, fetch_concern
from agent.errors import TransferFailed, TrueupError
from agent.failures import code_of, line_of, single
from agent.features import owners_of, times_count
from agent.fetch import fetch_index
from agent.itemise import Found, itemise
from agent.keeping import Keeper
from agent.kept import WHOLE, Version
from agent.libc import sync_file_system
from agent.look import Scope, View, look, observed_digest, observed_entries
from agent.manifest import entries_of, manifest_path
from agent.mounted import check_placed
from agent.outcome import Outcome
from agent.owners import Ids
from agent.planning import plan
from agent.pulse import FLUSH_SECONDS, quiet
from agent.recall import Recalled, recall
from agent.recent import RecentLooks
from agent.record import Recorded, established, look_where_gone, not_as_written, record, wait_for_clock
from agent.reuse import Shelf
from agent.room import check_room
from agent.rules import AgentRules
from agent.scan import Found as Scanned
from agent.scope import check_task, known_entries, scope_of
from agent.staging import sweep_staging
from agent.streaming import may_stream, take_streamed
from agent.target import Target, open_target
from agent.transfer import Transfer
from agent.wire.channel import Channel
from agent.wire.messages import ITEMISE, Entry, RenderedContent, Task, TaskReport
from agent.writer import Writer


async def run_task(
    task: Task,
    channel: Channel,
    *,
    rules: AgentRules,
    state_dir: Path,
    version: Version = WHOLE,
    looks: RecentLooks | None = None,
) -> TaskReport:
    """Does what `task` asks, within `rules`, and reports; the caller sends the report.

    Each path holds its old or its new content, whatever happens. All that can go wrong on this host or in
    what the primary sends is a FAILED report, and leaves nothing in staging. Raises TransferFailed once the
    session is gone; what came is left in staging then, and the next task carries on from there.
    """
    run = _Run(task, channel, rules, state_dir, version)
    run.looks = looks or run.looks
    try:
        return await run.run()
    except TransferFailed:
        raise
    except (TrueupError, OSError) as error:
        return run.failed(error)
    except BaseExceptionGroup as group:
        cause = single(group)
        if isinstance(cause, TransferFailed):
            raise cause from group
        if isinstance(cause, TrueupError | OSError):
            return run.failed(cause)
        raise
    finally:
        await run.close()


class _Run:
    def __init__(
        self, task: Task, channel: Channel, rules: AgentRules, state_dir: Path, version: Version
    ) -> None:
        self.looks = RecentLooks()
        self._task = task
        self._channel = channel
        self._rules = rules
        self._state_dir = state_dir
        self._version = version
        self._keeper = Keeper(task, manifest_path(state_dir, task.target_path))
        self._itemises = task.observe and ITEMISE in task.features
        self._target: Target | None = None
        self._view = View()
        self._out = Outcome()
        self._wanted_owners = owners_of(task)
        self._recalled: Recalled | None = None
        self._concern: Concern | None = None
        self._undoes = False
        self._root_mtime_ns: int | None = None
        self._left: tuple[Recorded, dict[str, Scanned | None]] | None = None
        self._writer: Writer | None = None
        self._fetched: Transfer | None = None
        self._now_ns: int | None = None

    async def close(self) -> None:
        await self._close_writer()
        if self._target is not None:
            if self._undoes:
                await self._keeper.undo(self._target, self._rules.roots)
            self._target.close()

    async def _close_writer(self) -> None:
        if self._writer is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._writer.close)
            self._writer = None

    # --- the steps -----------------------------------------------------------------------------

    async def run(self) -> TaskReport:
        task = self._task
        check_task(task, self._rules)
        scope = await self._open_and_glance()
        if self._recalled is None:
            await self._look(scope)
        differing = await self._look_at_rendered()
        if not task.observe or self._itemises:
            await check_placed(task.target_path, self._rules.roots, self._target, self._keeper.manifest)
        if task.observe:
            if self._itemises:
                await self._tell_what_would_be_done(scope, differing)
            else:
                await self._remember(scope)
            return self._succeeded(self._out.observed)
        target, equal = self._target, self._is_equal()
        if target is not None:
            self._root_mtime_ns = os.fstat(target.fd).st_mtime_ns
        if equal and target is not None:
            await trio.to_thread.run_sync(sweep_staging, target.fd)
        if equal and not self._view.disowned and not differing and self._out.after_done:
            if self._recalled is None:
                assert target is not None
                await self._keeper.refresh(target, self._view, scope, self._out.observed)
                await self._remember(scope)
            return self._succeeded(self._out.observed)
        if self._recalled is not None and (equal or differing):
            await self._look(scope)
            equal = self._is_equal()
        if equal:
            index: Sequence[Entry] = await trio.to_thread.run_sync(observed_entries, self._view, scope)
            changes = Changes()
        else:
            index = await self._concentrate(scope)
        if not equal or self._view.disowned:
            names, now_ns = self._keeper.names, self._now_ns
            planned = plan(self._task, index, self._view, scope, self._fd, names=names, now_ns=now_ns)
            index, changes, foreign = (await planned).parts
            self._out.foreign = foreign + (self._recalled.last.foreign if self._recalled else 0)
            self._out.local_edits = changes.local_edits
        tree = await self._apply(index, changes, differing, scope, equal=equal)
        self._undoes, self._fetched = False, None
        del index, changes  # of a large tree they are large
        await self._run_after()
        if self._left is not None and self._concern is not None and self._recalled is not None:
            given = self._view, self._recalled, self._out.foreign
            await self._keeper.remember_changes(*given, *self._left)
        elif self._left is not None:
            await self._keeper.remember_placed(self._view, scope, *self._left)
        self._out.rendered_equal = self._out.after_done = True
        self._out.owners = self._wanted_owners
        return self._succeeded(tree)

    def _is_equal(self) -> bool:
        """Whether no index is needed: owners that differ are put right without, unless files are written."""
        same_tree = self._target is not None and self._out.observed == self._task.tree
        same_owners = self._wanted_owners in (b"", self._out.owners)
        return same_tree and same_owners and not any(self._view.disowned.values())

    async def _remember(self, scope: Scope) -> None:
        if self._target is not None and self._recalled is None:
            await self._keeper.remember(self._view, scope, self._out.foreign)

    async def _fetch_index(self, scope: Scope) -> Sequence[Entry]:
        if self._keeper.manifest is None and may_stream(self._task):
            target = await self._make_target()
            if await trio.to_thread.run_sync(target.is_empty):
                return await self._stream(target, scope)
        known = await trio.to_thread.run_sync(known_entries, self._keeper.manifest, scope)
        index = await fetch_index(
            self._channel, self._task, self._rules, scope.ignore, reserved=scope.forbidden, known=known
        )
        self._root_mtime_ns = index.mtime_ns if times_count(self._task) else None
        self._keeper.names = await trio.to_thread.run_sync(index.names)
        self._out.warnings += await trio.to_thread.run_sync(scope.owner_warnings, index.owned)
        return index.entries

    async def _concentrate(self, scope: Scope) -> Sequence[Entry]:
        """What of an index the task is about, where a glance has shown the rest; else all, after a look."""
        fd, recalled = self._fd, self._recalled
        if fd is None or recalled is None:
            return await self._fetch_index(scope)
        if (ledger := await self._keeper.load_ledger(recalled.last.glance, recalled.rows)) is None:
            await self._look(scope)
            return await self._fetch_index(scope)
        given = self._channel, self._task, self._rules, scope, fd
        self._concern, whole, mtime_ns = await fetch_concern(*given, recalled, ledger)
        self._root_mtime_ns = mtime_ns if times_count(self._task) else None
        if self._concern is None:
            await self._look(scope)
            return await trio.to_thread.run_sync(entries_of, whole)
        self._view = self._concern.view
        return self._concern.index

    async def _stream(self, target: Target, scope: Scope) -> Sequence[Entry]:
        """Takes the index with what it names, which is in staging then if there was room for it."""
        await self._keeper.save(target, (), after_due=True)  # it is known from now on who made the directory
        self._writer = self._new_writer(target, holds=True)
        self._now_ns = time.time_ns()
        given = self._channel, self._task, self._rules, scope, self._writer, self._now_ns
        streamed = await take_streamed(*given)
        self._task = replace(self._task, tree=streamed.tree)
        self._root_mtime_ns, self._fetched = None, streamed.transfer  # its times mean nothing
        if self._fetched is None:
            await self._close_writer()
        # That took its time, and somebody may have put something there.
        self._view = await look(target.fd, target.identity, None, scope)
        return streamed.index.entries

    async def _make_target(self) -> Target:
        if self._target is None:
            self._target = await trio.to_thread.run_sync(self._open, True)
            assert self._target is not None
            self._keeper.made = self._target.made > 0
            await self._target.lock(shared=self._task.observe)
            self._undoes = True
        return self._target

    def _new_writer(
        self, target: Target, owners: Mapping[str, Ids] | None = None, *, holds: bool = False
    ) -> Writer:
        return Writer(
            target.fd,
            self._view.found,
            on_local_edit=self._task.on_local_edit,
            ignore_permissions=self._task.ignore_permissions,
            owners=owners,
            holds=holds,
        )

    async def _open_and_glance(self) -> Scope:
        """Opens the target, where there is one, and sees whether all is as it was at the last look."""
        task = self._task
        scope = await scope_of(task, self._rules, self._state_dir)
        self._target = target = await trio.to_thread.run_sync(self._open, False)
        self._out.after_done = not task.after
        if target is None:
            return scope
        await target.lock(shared=task.observe)
        if self._itemises:
            return scope  # it tells of each entry
        record = self._keeper.path
        recent = self.looks.take(record)
        recalled = await trio.to_thread.run_sync(recall, record, target, task, scope, recent)
        if recalled is not None:
            if task.observe:
                self.looks.keep(record, recalled)
            self._recalled, last = recalled, recalled.last
            self._out.observed, self._out.foreign, self._out.owners = last.tree, last.foreign, last.owners
            self._view.files_glanced = last.files
            self._out.after_done = not task.after or (not last.after_due and last.after == task.after)
        return scope

    async def _look(self, scope: Scope) -> None:
        """Sees what of ours the target holds."""
        task, self._recalled = self._task, None
        manifest = await self._keeper.load()
        if self._target is not None:
            self._view = view = await look(self._target.fd, self._target.identity, manifest, scope)
            self._out.owners = manifest.owners if manifest is not None else b""
            self._keeper.names = view.names
            self._out.observed = await trio.to_thread.run_sync(observed_digest, view, scope, manifest)
            self._out.local_edits = len(view.edited)
            self._out.foreign = await trio.to_thread.run_sync(view.foreign, scope)
        is_done = manifest is not None and not manifest.after_due and manifest.after == task.after
        self._out.after_done = not task.after or is_done

    @property
    def _fd(self) -> int | None:
        return self._target.fd if self._target is not None else None

    def _open(self, create: bool) -> Target | None:
        return open_target(self._task.target_path, self._rules.roots, create=create)

    async def _look_at_rendered(self) -> list[RenderedContent]:
        given = self._fd, self._task.rendered, self._rules.owners
        files = await trio.to_thread.run_sync(rendered.differing, *given)
        self._out.rendered_equal = not files
        return files

    async def _tell_what_would_be_done(self, scope: Scope, differing: Sequence[RenderedContent]) -> None:
        state = self._out.foreign, self._out.after_done, self._is_equal() and not self._view.disowned
        found = Found(self._task, self._view, scope, differing, *state, self._version)
        await itemise(found, self._channel, self._rules, self._fd)

    # --- doing it ------------------------------------------------------------------------------

    async def _apply(
        self,
        index: Sequence[Entry],
        changes: Changes,
        differing: Sequence[RenderedContent],
        scope: Scope,
        *,
        equal: bool,
    ) -> bytes:
        """Makes the changes; gives the digest of what is there then."""
        task = self._task
        target = await self._make_target()
        if self._fetched is None:
            shelves = Shelf(target.fd, self._view.contents()), *self._version.shelves
            await trio.to_thread.run_sync(check_room, target.fd, changes.writes, shelves)
        if changes or differing:
            await self._keeper.save(
                target,
                self._view.besides or list(self._view.ours.values()),
                changes=changes,
                after_due=bool(task.after),
            )
        if self._writer is None:
            owners = await trio.to_thread.run_sync(scope.owner_ids, self._keeper.names)
            self._writer = self._new_writer(target, owners)
        writer = self._writer
        given = task, self._channel, self._rules, writer, self._view, self._version.shelves
        ordinals = self._concern.ordinals if self._concern is not None else None
        application = Application(*given, fetched=self._fetched, ordinals=ordinals)
        try:
            if changes or differing:
                await application.run(index, changes, differing)
                await wait_for_clock()
            else:
                await trio.to_thread.run_sync(sweep_staging, target.fd)
            kept = changes.kept | writer.kept
            looked = target.fd, index, self._view, writer, kept, self._keeper.names, scope.owners
            recorded = await trio.to_thread.run_sync(record, *looked)
            self._view.disowned = recorded.disowned
            if not (kept or writer.backups or writer.made_above):
                self._left = recorded, await trio.to_thread.run_sync(look_where_gone, target.fd, changes)
        finally:
            self._out.count(application, writer)
            self._keeper.made_above |= writer.made_above
            await self._close_writer()
        if self._root_mtime_ns is not None:
            await trio.to_thread.run_sync(set_time, target.fd, self._root_mtime_ns)
        if self._task.durability != "none" and (changes or differing):
            with quiet(FLUSH_SECONDS):
                await trio.to_thread.run_sync(sync_file_system, target.fd)
        self._out.warnings += told_of_edits(kept, writer.backups)
        of = recorded.placed, index, task.tree
        if self._concern is None:
            placed, tree = await trio.to_thread.run_sync(established, *of, task.ignore_permissions)
        else:
            placed, tree = await trio.to_thread.run_sync(self._concern.established, *of)
        after_due = not self._out.after_done or bool(changes or differing)
        await self._keeper.save(target, placed, after_due=after_due, tree=tree)
        if tree != task.tree and not equal:
            raise not_as_written(task.target_path)
        return task.tree

    # --- afterwards ----------------------------------------------------------------------------

    async def _run_after(self) -> None:
        """Runs the commands in order, up to the first that fails, and notes that they succeeded."""
        task = self._task
        if not task.after:
            return
        manifest = self._keeper.manifest
        assert self._target is not None and manifest is not None
        what = "the files are in place"
        await run_after(task, self._rules, self._target.fd, hide=self._hide, done=self._out.after, what=what)
        await self._keeper.save(self._target, manifest.placed, after_due=False, tree=manifest.tree)

    def _hide(self, text: str) -> str:
        return rendered.hide(text, self._task.rendered)

    # --- reporting -----------------------------------------------------------------------------

    def failed(self, error: Exception) -> TaskReport:
        message = self._hide(line_of(error))
        return self._out.report(self._task, self._view, "FAILED", reason=code_of(error), message=message)

    def _succeeded(self, established: bytes) -> TaskReport:
        return self._out.report(self._task, self._view, "SUCCESS", established=established)
