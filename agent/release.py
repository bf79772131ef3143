"""A task of strategy `release`: each tree gets a directory of its own, and `current` leads to one of them.

A version is put together beside the others, by the same steps as any target, until it is whole, verified
and on the disk; then it gets its name and one rename lets `current` lead to it. So who resolves `current`
sees the whole old or the whole new tree. A version that is there already is switched to and nothing is
sent; what was changed in the current one is put right in place.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import trio

from agent import rendered
from agent.commands import check_commands, run_after
from agent.errors import TransferFailed, TrueupError
from agent.failures import TaskFailed, code_of, line_of, shortened
from agent.ignore import Ignore
from agent.kept import Version, shelves_of
from agent.manifest import load, manifest_path
from agent.mounted import check_mounted
from agent.pruning import discard, forget_others
from agent.reuse import Shelf
from agent.rules import AgentRules
from agent.site import Site
from agent.target import Target, check_target, open_target, private_inside
from agent.task import run_task
from agent.versions import (
    BUILDING,
    Releases,
    check_layout,
    check_release,
    load_releases,
    new_name,
    record_path,
    save_releases,
    settle,
    surplus,
    switched,
    unlisted,
    version_path,
    versions_state,
)
from agent.wire.channel import Channel
from agent.wire.messages import ITEMISE, STREAM, AfterResult, KeptVersion, Task, TaskReport
from agent.workshop import Workshop


async def run_release(task: Task, channel: Channel, *, rules: AgentRules, state_dir: Path) -> TaskReport:
    """Does what `task` asks, within `rules`, and reports; raises as `run_task` does."""
    run = _Run(task, channel, rules, state_dir)
    try:
        return await run.run()
    except TransferFailed:
        raise
    except (TrueupError, OSError) as error:
        return run.failed(error)
    finally:
        run.close()


class _Run:
    def __init__(self, task: Task, channel: Channel, rules: AgentRules, state_dir: Path) -> None:
        # A release is made as a tree of its own, which is named when it begins.
        features = tuple(feature for feature in task.features if feature != STREAM)
        self._task = msgspec.structs.replace(task, features=features)
        self._channel = channel
        self._rules = rules
        self._state_dir = state_dir
        self._path = record_path(state_dir, task.target_path)
        self._inner = versions_state(state_dir, task.target_path)
        self._durable = task.durability != "none"
        self._site: Site | None = None
        self._record: Releases | None = None
        self._found = TaskReport(task=task.id, state="SUCCESS")
        """What a look at the current version said."""
        self._looked_at = ""
        """The name of that."""
        self._done = self._found
        """What the work said that was done then."""
        self._after: list[AfterResult] = []
        self._warnings: list[str] = []

    def close(self) -> None:
        if self._site is not None:
            self._site.close()
            self._site = None

    # --- the steps -----------------------------------------------------------------------------

    async def run(self) -> TaskReport:
        task = self._task
        await self._check()
        await self._open()
        await self._look()
        if task.observe or self._found.state == "FAILED":
            return self._report(self._found, established=self._found.observed)
        record, site = await self._begin()
        workshop = Workshop(task, site, self._rules, self._inner)
        await trio.to_thread.run_sync(workshop.settle, record)
        current = record.named(record.current)
        right = current is not None and current.tree == task.tree and self._found.observed == task.tree
        good = self._found.rendered_equal and self._found.owners_equal
        if right and (good or task.kept_only) and self._after_done():
            await self._name_revision()
            await self._tidy(workshop)
            return self._report(self._found, established=task.tree)
        version = record.with_tree(task.tree)
        if version is not None:
            if version == current:
                await self._note_due()
            await self._put_right(version)
        else:
            version = await self._build(workshop)
        if version is None or self._done.state == "FAILED":
            return self._report(self._done)
        await self._switch(version)
        await self._run_after(version)
        await self._tidy(workshop)
        return self._report(self._done, established=task.tree)

    async def _check(self) -> None:
        """Refuses, before anything is looked at, what this host would not do in the end."""
        task = self._task
        check_release(task)
        check_target(task.target_path, self._rules.roots)
        rendered.check_rendered(task.rendered)
        if not task.observe:
            check_commands(task.after, self._rules.commands)
        private = await trio.to_thread.run_sync(
            private_inside, task.target_path, self._rules.roots, self._rules.private
        )
        check_layout(private)
        if await trio.to_thread.run_sync(manifest_path(self._state_dir, task.target_path).exists):
            raise TaskFailed(
                "StrategyChanged",
                f"{task.target_path!r} holds a tree that was placed there without releases",
                hint="name another target_path for the releases: what is here goes once the spec no longer"
                " has it",
            )

    async def _open(self) -> None:
        """Opens the target, where there is one, and sees what versions it holds."""
        record = self._record = await trio.to_thread.run_sync(load_releases, self._path)
        target = await trio.to_thread.run_sync(self._open_target, False)
        if target is not None:
            await self._hold(target)
        foresees = not self._task.observe or ITEMISE in self._task.features
        if foresees and record is not None and record.kept:
            await check_mounted(self._task.target_path, self._rules.roots, target, record.root)

    def _open_target(self, create: bool) -> Target | None:
        return open_target(self._task.target_path, self._rules.roots, create=create)

    async def _hold(self, target: Target) -> None:
        self._site = Site(target)
        await target.lock(shared=self._task.observe)
        # What another task has written meanwhile.
        self._record = await trio.to_thread.run_sync(load_releases, self._path)
        site = self._site

        def settled() -> Releases | None:
            link, there = site.current(), site.versions()
            return settle(self._record, there, link) if self._record is not None else None

        self._record = await trio.to_thread.run_sync(settled)

    async def _look(self) -> None:
        """What the current version holds; or, where nothing is, what a first one would bring."""
        task, record = self._task, self._record
        current = record.current if self._site is not None and record is not None else ""
        self._looked_at = current
        if task.observe and ITEMISE in task.features:
            self._found = await self._work_at(current or BUILDING, after=task.after)
        elif task.observe and current:
            self._found = await self._work_at(current)
        elif current:
            files = () if task.kept_only else task.rendered
            self._found = await self._work_at(current, observe=True, features=(), rendered=files)

    async def _work_at(self, name: str, **changes: object) -> TaskReport:
        """Runs a task for one version, as if that were a target of its own; it may borrow from the others."""
        own = {"target_path": version_path(self._task.target_path, name), "strategy": "mirror", "after": ()}
        task = msgspec.structs.replace(self._task, **{**own, **changes})
        if task.kept_only:  # what it leaves out is what was left out of it
            path = manifest_path(self._inner, task.target_path)
            manifest = await trio.to_thread.run_sync(load, path)
            task = msgspec.structs.replace(task, ignore=manifest.ignore if manifest is not None else ())
        record, shelves = self._record, list[Shelf]()
        with ExitStack() as stack:
            if record is not None and (not task.observe or ITEMISE in task.features):
                shelves = await trio.to_thread.run_sync(
                    lambda: shelves_of(record, self._inner, self._rules.roots, but=name, close_with=stack)
                )
            version = self._version(name, shelves)
            return await run_task(
                task, self._channel, rules=self._rules, state_dir=self._inner, version=version
            )

    def _version(self, name: str, shelves: Sequence[Shelf]) -> Version:
        """Only the current version of the same tree is put right in place, unless it has to be made first."""
        current = self._record.named(name) if self._record is not None else None
        anew = current is not None and current.tree != self._task.tree
        after_done = not anew and self._after_done()
        return Version(shelves, after_done, anew)

    def _after_done(self) -> bool:
        after, record = self._task.after, self._record
        return not after or (record is not None and not record.after_due and record.after == after)

    # --- changing ------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Releases, Site]:
        """Makes the target where it is missing, and carries on what a killed task left."""
        task = self._task
        made = False
        if self._site is None:
            made = bool(check_target(task.target_path, self._rules.roots)[1])  # never a root itself
            target = await trio.to_thread.run_sync(self._open_target, True)
            assert target is not None
            await self._hold(target)
        site = self._site
        assert site is not None
        identity = site.target.identity
        if self._record is None:
            self._record = Releases(project=task.project, target=task.target_path, root=identity, made=made)
        else:
            same = self._record.root == identity
            self._record = msgspec.structs.replace(
                self._record, project=task.project, root=identity, made=made or (same and self._record.made)
            )
        return self._record, site

    async def _save(self, **changes: object) -> Releases:
        assert self._record is not None
        self._record = msgspec.structs.replace(self._record, **changes)
        await trio.to_thread.run_sync(
            lambda record: save_releases(self._path, record, durable=self._durable), self._record
        )
        return self._record

    async def _name_revision(self) -> None:
        """The same tree may go by another name by now."""
        record, revision = self._record, self._task.revision
        assert record is not None
        current = record.named(record.current)
        if current is None or not revision or current.revision == revision or self._task.kept_only:
            return
        await self._save(kept=_renamed(record, current, revision))

    async def _put_right(self, version: KeptVersion) -> None:
        """Sees to it that a version which is there holds its tree, before it is switched to."""
        task = self._task
        if not task.kept_only:
            self._done = await self._work_at(version.name)
            if self._done.state == "SUCCESS" and task.revision and task.revision != version.revision:
                record = self._record
                assert record is not None
                await self._save(kept=_renamed(record, version, task.revision))
            return
        self._done = await self._work_at(version.name, observe=True, features=(), rendered=())
        if self._done.state == "SUCCESS" and self._done.observed != version.tree:
            raise TaskFailed(
                "VersionChanged",
                f"release {version.name!r} in {task.target_path!r} no longer holds what was placed there",
                hint="name another one, or lift the rollback",
            )

    async def _build(self, workshop: Workshop) -> KeptVersion | None:
        """Puts a new version together and names it; None if that failed, which `_done` tells of."""
        task, site, record = self._task, self._site, self._record
        assert site is not None and record is not None
        if task.kept_only:
            raise TaskFailed(
                "VersionGone",
                f"no release in {task.target_path!r} holds the tree to go back to",
                hint="name one of those that are kept, or lift the rollback",
            )
        self._done = await workshop.build(record, self._work_at)
        if self._done.state == "FAILED":
            return None
        number, name = new_name(record, await trio.to_thread.run_sync(site.versions), task.tree)
        version = KeptVersion(name=name, tree=task.tree, revision=task.revision, at=int(time.time()))
        await self._save(next=version, number=number)
        await trio.to_thread.run_sync(workshop.name, name)
        return version

    async def _note_due(self) -> None:
        """The commands have to follow, whatever becomes of this task."""
        record, after = self._record, self._task.after
        assert record is not None
        if record.after != after or record.after_due != bool(after):
            await self._save(after=after, after_due=bool(after))

    async def _switch(self, version: KeptVersion) -> None:
        site, record = self._site, self._record
        assert site is not None and record is not None
        await self._note_due()
        listed = record.named(version.name) or version
        if record.current != listed.name or await trio.to_thread.run_sync(site.current) != listed.name:
            await trio.to_thread.run_sync(lambda: site.switch(listed.name, durable=self._durable))
        assert self._record is not None
        moved = switched(self._record, listed)
        await self._save(kept=moved.kept, current=moved.current, next=None)

    async def _run_after(self, version: KeptVersion) -> None:
        """Runs the commands in the tree that is current now, up to the first that fails."""
        task = self._task
        if not task.after:
            return
        path = version_path(task.target_path, version.name)
        folder = await trio.to_thread.run_sync(lambda: open_target(path, self._rules.roots, create=False))
        if folder is None:
            raise TaskFailed("TargetChanged", f"{path!r} is gone", hint="try again")
        try:
            what = f"release {version.name!r} is current"
            await run_after(task, self._rules, folder.fd, hide=self._hide, done=self._after, what=what)
        finally:
            folder.close()
        await self._save(after_due=False)

    async def _tidy(self, workshop: Workshop) -> None:
        """Removes what is left of a version that was never finished, and those beyond `keep`.

        While a rollback stands nothing is pruned: it is not where the target will stay.
        """
        site, record = self._site, self._record
        assert site is not None and record is not None
        await trio.to_thread.run_sync(workshop.sweep)
        if self._task.kept_only:
            return
        there = await trio.to_thread.run_sync(site.versions)
        if others := unlisted(record, there):
            self._warnings.append(
                f"{self._task.target_path!r} holds releases that are in no record of this agent, and stay: "
                f"{', '.join(others)}"
            )
        for version in surplus(record, self._task.keep):
            warnings = await discard(
                record, version, self._inner, site, self._rules, everything=self._everything()
            )
            self._warnings += warnings
            record = await self._save(kept=tuple(each for each in record.kept if each != version))
        await trio.to_thread.run_sync(forget_others, record, self._inner)

    def _everything(self) -> Ignore | None:
        return Ignore(self._task.ignore) if self._task.removes_foreign else None

    # --- reporting -----------------------------------------------------------------------------

    def _hide(self, text: str) -> str:
        return rendered.hide(text, self._task.rendered)

    def failed(self, error: Exception) -> TaskReport:
        report = msgspec.structs.replace(
            self._done, state="FAILED", reason=code_of(error), message=self._hide(line_of(error))[:2000]
        )
        return self._report(report)

    def _report(self, done: TaskReport, *, established: bytes = b"") -> TaskReport:
        found, record = self._found, self._record
        good = done.state == "SUCCESS"
        return msgspec.structs.replace(
            done,
            task=self._task.id,
            observed=found.observed,
            rendered_equal=found.rendered_equal if self._task.observe or not good else True,
            after_done=self._after_done() if self._task.observe or not good else True,
            established=established if good else b"",
            local_edits=self._local_edits(done),
            warnings=shortened([*done.warnings, *self._warnings]),
            after=tuple(self._after),
            current=record.current if record is not None else "",
            kept=record.kept if record is not None else (),
        )

    def _local_edits(self, done: TaskReport) -> int:
        """Those that were met; where edits stay, those in what is current now, not in what was left."""
        record = self._record
        if self._task.on_local_edit == "keep" and record is not None and record.current != self._looked_at:
            return done.local_edits
        return max(self._found.local_edits, done.local_edits)


def _renamed(record: Releases, version: KeptVersion, revision: str) -> tuple[KeptVersion, ...]:
    return tuple(
        msgspec.structs.replace(each, revision=revision) if each.name == version.name else each
        for each in record.kept
    )
