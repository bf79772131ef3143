"""Where the next version of a target is put together: begun as a copy, filled like any target, then named.

A kill leaves a copy that is not whole, which is swept, or a version that lacks files, which is carried on.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from agent.clone import Clone
from agent.failures import TaskFailed
from agent.ignore import Ignore
from agent.libc import sync_file_system
from agent.manifest import Manifest, forget, load, manifest_path, save
from agent.pulse import FLUSH_SECONDS, quiet
from agent.rules import AgentRules
from agent.site import Site
from agent.target import open_target
from agent.versions import BUILDING, Releases, version_path
from agent.wire.messages import Task, TaskReport


class Workshop:
    """Of one task at one target; `inner` is the state directory of its versions."""

    def __init__(self, task: Task, site: Site, rules: AgentRules, inner: Path) -> None:
        self._task = task
        self._site = site
        self._rules = rules
        self._inner = inner
        self._durable = task.durability != "none"
        self._at = version_path(task.target_path, BUILDING)
        self._manifest_path = self._manifest_of(BUILDING)

    def _manifest_of(self, name: str) -> Path:
        return manifest_path(self._inner, version_path(self._task.target_path, name))

    def sweep(self) -> None:
        """Removes what was begun and is not wanted; blocks."""
        self._site.sweep()
        forget(self._manifest_path)
        self._manifest_path.unlink(missing_ok=True)

    def settle(self, record: Releases) -> None:
        """A version that got its name gets its manifest's too, should a kill have come between; blocks."""
        if self._site.is_building() or not self._manifest_path.exists():
            return
        manifest = load(self._manifest_path)
        for version in record.kept:
            if manifest is not None and not self._manifest_of(version.name).exists():
                self._name_manifest(manifest, version.name)
                return

    async def build(self, record: Releases, work: Callable[[str], Awaitable[TaskReport]]) -> TaskReport:
        """Puts a version together, by `work` as in any target; on the disk and whole when that succeeded."""
        resumed = await trio.to_thread.run_sync(
            lambda: self._site.is_building() and self._manifest_path.exists()
        )
        if not resumed:
            await trio.to_thread.run_sync(self.sweep)
            if record.current:
                await self._clone(record.current)
        report = await work(BUILDING)
        if report.state == "SUCCESS" and self._durable:
            with quiet(FLUSH_SECONDS):
                await trio.to_thread.run_sync(sync_file_system, self._site.target.fd)
        return report

    def name(self, name: str) -> None:
        """Gives what was built its name; blocks."""
        manifest = load(self._manifest_path)
        if manifest is None or manifest.pending or manifest.deleting:
            raise TaskFailed("TargetChanged", "the record of the new release is gone", hint="try again")
        self._site.name(name, durable=self._durable)
        self._name_manifest(manifest, name)

    def _name_manifest(self, manifest: Manifest, name: str) -> None:
        named = msgspec.structs.replace(manifest, target=version_path(self._task.target_path, name))
        save(self._manifest_of(name), named, durable=self._durable)
        self._manifest_path.unlink(missing_ok=True)
        forget(self._manifest_path)

    async def _clone(self, current: str) -> None:
        """Begins with what of the current version is as it was placed."""
        task, roots = self._task, self._rules.roots
        manifest = await trio.to_thread.run_sync(load, self._manifest_of(current))
        if manifest is None or not manifest.placed:
            return
        before = version_path(task.target_path, current)
        source = await trio.to_thread.run_sync(lambda: open_target(before, roots, create=False))
        if source is None:
            return
        try:
            target = await trio.to_thread.run_sync(lambda: open_target(self._at, roots, create=True))
            assert target is not None
            try:
                clone = Clone(
                    source.fd,
                    target.fd,
                    await trio.to_thread.run_sync(Ignore, task.ignore),
                    frozenset(file.path for file in task.rendered),
                    task.on_local_edit == "keep",
                )
                placed = await clone.run(manifest)
            finally:
                target.close()
        finally:
            source.close()
        begun = Manifest(
            project=task.project,
            target=self._at,
            root=target.identity,
            placed=tuple(placed),
            made=True,
            tree_has_modes=manifest.tree_has_modes,
        )
        # Only with its manifest is a copy whole; without one it is swept away.
        await trio.to_thread.run_sync(lambda: save(self._manifest_path, begun, durable=self._durable))
