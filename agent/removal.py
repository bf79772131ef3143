"""Removes from a target what was placed there, once the spec no longer has it: that and nothing else.

The manifest decides. It names what goes before anything does and itself goes last, so that a removal
that was killed is carried on by the next one.
"""

import contextlib
import os
from pathlib import Path

import msgspec
import trio

from agent.apply import BATCH
from agent.errors import PathRefused
from agent.failures import shortened
from agent.folders import Folders
from agent.ignore import Ignore
from agent.index import parent_of
from agent.libc import sync_file_system
from agent.look import Scope, View, look
from agent.manifest import Manifest, forget, load, manifest_path, other_targets, save
from agent.mounted import check_removable
from agent.pulse import FLUSH_SECONDS, quiet
from agent.rules import AgentRules
from agent.scan import look_at
from agent.staging import sweep_staging
from agent.target import STAYS, Target, check_target, open_target, private_inside, remove_made_root
from agent.wire.messages import Removal, TaskReport
from agent.writer import Writer


async def remove(
    removal: Removal, *, rules: AgentRules, state_dir: Path, is_version: bool = False
) -> TaskReport:
    """Removes what the manifest of the target lists; harmless where that is gone already.

    A file that somebody changed stays, as do foreign ones, and the target's directory with them; it
    goes only if a task made it. Of a version of a release it is known that its disk is there. Raises
    TrueupError and OSError as a task does.
    """
    path = removal.target_path
    record = manifest_path(state_dir, path)
    # First: where nothing was ever placed, as this host does not allow it, nothing is to be removed either.
    found = await trio.to_thread.run_sync(_recorded, removal, record)
    if isinstance(found, TaskReport):
        return found
    check_target(path, rules.roots)
    private = await trio.to_thread.run_sync(private_inside, path, rules.roots, rules.private)
    target = await trio.to_thread.run_sync(lambda: open_target(path, rules.roots, create=False))
    if target is None:
        if not is_version:
            await check_removable(path, rules.roots, None, found)
        await trio.to_thread.run_sync(_forget, record)
        return _report(removal, [])
    try:
        await target.lock(shared=False)
        # Whoever had the lock may have placed something else there, for another project too.
        found = await trio.to_thread.run_sync(_recorded, removal, record)
        if isinstance(found, TaskReport):
            return found
        if not is_version:
            await check_removable(path, rules.roots, target, found)
        return await _Removing(removal, rules, state_dir, target, found, private).run()
    finally:
        target.close()


def _recorded(removal: Removal, record: Path) -> Manifest | TaskReport:
    """What is to be removed, or what to report as there is nothing; blocks."""
    path = removal.target_path
    manifest = load(record)
    if manifest is None:
        return _report(removal, [f"there is no record of anything placed in {path!r}: nothing was removed"])
    if manifest.project != removal.project:
        return _report(removal, [f"{path!r} is of another project by now: nothing was removed"])
    return manifest


class _Removing:
    def __init__(
        self,
        removal: Removal,
        rules: AgentRules,
        state_dir: Path,
        target: Target,
        manifest: Manifest,
        private: frozenset[str],
    ) -> None:
        self._removal = removal
        self._rules = rules
        self._state_dir = state_dir
        self._target = target
        self._manifest = manifest
        self._private = private
        self._record = manifest_path(state_dir, removal.target_path)
        self._warnings: list[str] = []

    async def run(self) -> TaskReport:
        target, run = self._target, trio.to_thread.run_sync
        view = await self._look()
        await run(sweep_staging, target.fd)
        going = sorted(
            (
                path
                for path, placed in view.ours.items()
                if path in view.found and path not in view.edited and not placed.kept
            ),
            reverse=True,
        )
        self._warnings += [
            f"{path!r} was changed since it was placed and stays" for path in sorted(view.edited)
        ]
        await run(self._announce, going)
        writer = Writer(target.fd, view.found, on_local_edit="keep")
        unlocked = await run(writer.unlock_folders, sorted({parent_of(path) for path in going} - {""}))
        stayed: list[str] = []
        for start in range(0, len(going), BATCH):
            stayed += await run(writer.delete, going[start : start + BATCH])
        rendered = await run(self._remove_rendered)
        await run(self._remove_folders, [*self._manifest.above_rendered, *stayed])
        await run(lambda: writer.finish_folders(unlocked, modes=True))
        with quiet(FLUSH_SECONDS):
            await run(sync_file_system, target.fd)
        await run(self._remove_root)
        # Last: as long as it is there, whatever was cut short is carried on.
        await run(_forget, self._record)
        return _report(self._removal, self._warnings, deleted=writer.deleted + rendered)

    async def _look(self) -> View:
        others = await trio.to_thread.run_sync(other_targets, self._state_dir, self._removal.target_path)
        scope = Scope(
            ignore=Ignore([]),
            forbidden=self._private,
            reserved=self._private.union(others),
            delete_foreign=False,
            keep_edits=False,
            ignore_permissions=False,
        )
        return await look(self._target.fd, self._target.identity, self._manifest, scope)

    def _announce(self, going: list[str]) -> None:
        doomed = msgspec.structs.replace(self._manifest, deleting=tuple(going), tree=b"")
        save(self._record, doomed, durable=True)

    def _remove_rendered(self) -> int:
        """Takes away rendered files; nobody noted what they held, so only their place tells them."""
        if self._manifest.root != self._target.identity:
            # Another directory took the target's place: a file of that name there may be anybody's.
            self._warnings += [
                f"{path!r} stays: the directory was replaced" for path in self._manifest.rendered
            ]
            return 0
        removed = 0
        with Folders(self._target.fd) as folders:
            for path in self._manifest.rendered:
                with contextlib.suppress(FileNotFoundError, PathRefused):
                    there = look_at(folders, path)
                    if there is None:
                        continue
                    if there.kind != "file" or path in self._private:
                        self._warnings.append(f"{path!r} is no longer the file that was rendered, and stays")
                        continue
                    above, name = folders.locate(path)
                    os.unlink(name, dir_fd=above)
                    removed += 1
        return removed

    def _remove_folders(self, paths: list[str]) -> None:
        """Directories of ours that are empty, now that everything else is gone."""
        if self._manifest.root != self._target.identity:
            return
        with Folders(self._target.fd) as folders:
            for path in sorted(paths, reverse=True):
                with contextlib.suppress(FileNotFoundError, PathRefused):
                    there = look_at(folders, path)
                    if there is not None and there.kind == "directory":
                        above, name = folders.locate(path)
                        _rmdir(above, name)

    def _remove_root(self) -> None:
        """The target's own directory, if a task made it and nothing is left in it."""
        if self._manifest.made and self._manifest.root == self._target.identity:
            remove_made_root(self._target, self._rules.roots)


def _rmdir(above: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=above)
    except OSError as error:
        if error.errno not in STAYS:
            raise


def _forget(record: Path) -> None:
    forget(record)
    record.unlink(missing_ok=True)
    folder = os.open(record.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _report(removal: Removal, warnings: list[str], *, deleted: int = 0) -> TaskReport:
    return TaskReport(task=removal.id, state="SUCCESS", files_deleted=deleted, warnings=shortened(warnings))
