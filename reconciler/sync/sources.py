"""What projects are synced from: a directory as it was looked at, or one checkout and one build for each
project and commit of a pass.

However many targets a project has, its tree is checked out, built, scanned and hashed once.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import msgspec
import structlog
import trio

from agent.errors import PathRefused
from reconciler.apply import Details
from reconciler.deploy.build import BuildRequest, run_build
from reconciler.deploy.context import RunContext
from reconciler.desired import DesiredSync
from reconciler.desired_model import directory_key
from reconciler.directories import DirectoryLook, Looks
from reconciler.errors import StepFailed
from reconciler.git.checkout import checkout
from reconciler.identity import project_id
from reconciler.repositories import Repositories
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Spec
from reconciler.sync.serving import TreeSource
from reconciler.sync.telling import TreeRuns

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TreeKey = tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


class ProjectSources:
    """Checkouts and scanned trees of one pass; all are removed when it is left."""

    def __init__(
        self,
        spec: Spec,
        repositories: Repositories,
        checkouts: Path,
        context: RunContext,
        directories: Looks = MappingProxyType({}),
    ) -> None:
        """`directories`: trees of projects without a repository, as when the pass was planned."""
        self._spec = spec
        self._repositories = repositories
        self._checkouts = checkouts
        self._context = context
        self._live = directories
        self._stack = AsyncExitStack()
        self._locks: dict[tuple[str, str], trio.Lock] = {}
        self._directories: dict[tuple[str, str], Path] = {}
        self._trees: dict[TreeKey, TreeSource] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def build(self, sync: DesiredSync) -> Details:
        """Run the project's build in its checkout."""
        project, revision = sync.project, sync.revision
        assert project.build is not None and revision is not None
        async with self._lock(sync):
            directory = await self._checkout(sync)
            completed = await run_build(
                BuildRequest(
                    owner=project_id(project),
                    project=project.id,
                    build=project.build,
                    checkout=directory,
                    revision=revision.commit,
                    masker=Masker([]),
                    context=self._context,
                    environment=project.environment,
                    tag=revision.ref if project.environment else None,
                    log=lambda line: log.info("build output", project=project.id, line=line),
                )
            )
        return {"exit_code": completed.exit_code, "output": completed.output}

    async def tree(self, sync: DesiredSync) -> TreeSource:
        """The scanned tree for one target, shared with all targets that have the same rules."""
        project, target = sync.project, sync.target
        if project.source is not None:
            found = self._live[directory_key(project, target)]
            assert isinstance(found, DirectoryLook)  # a step has no setback
            return found.source
        key = (*_key(sync), sync.ignore, target.include, target.exclude)
        async with self._lock(sync):
            if key not in self._trees:
                directory = _below(await self._checkout(sync), sync)
                tree = await TreeSource.build(
                    directory,
                    ignore=sync.ignore,
                    include=target.include,
                    exclude=target.exclude,
                    reserved=tuple(file.path for file in project.files),
                    ignore_permissions=project.sync.ignore_permissions,
                )
                self._trees[key] = await trio.to_thread.run_sync(without_times, tree)
            return self._trees[key]

    def _lock(self, sync: DesiredSync) -> trio.Lock:
        return self._locks.setdefault(_key(sync), trio.Lock())

    async def _checkout(self, sync: DesiredSync) -> Path:
        key = _key(sync)
        if key not in self._directories:
            assert sync.project.repository is not None
            mirror = self._repositories.mirror(self._spec.repositories[sync.project.repository].url)
            self._directories[key] = await self._stack.enter_async_context(
                checkout(mirror, key[1], under=self._checkouts)
            )
        return self._directories[key]


def without_times(source: TreeSource) -> TreeSource:
    """A tree that was just put together: its times say when that was, and would be others each time."""
    entries = tuple(msgspec.structs.replace(entry, mtime_ns=0) for entry in source.entries)
    return replace(source, entries=entries, times=False, runs=TreeRuns())


def _below(checkout: Path, sync: DesiredSync) -> Path:
    """The project's directory. A build may leave a link there, but none that leads out of the checkout."""
    project = sync.project
    root = checkout.resolve()
    directory = (root / project.path.strip("/")).resolve()
    if not directory.is_relative_to(root):
        raise PathRefused(
            f"`{project.path}` leads out of the checkout of {sync.revision}",
            hint=f"correct the build of projects.{project.id}: it must leave its result in the checkout",
        )
    if not directory.is_dir():
        raise StepFailed(
            f"`{project.path}` does not exist after the build of {sync.revision}",
            hint=f"correct projects.{project.id}.path or its build",
        )
    return directory


def _key(sync: DesiredSync) -> tuple[str, str]:
    assert sync.revision is not None  # a step has no setback
    return sync.project.id, sync.revision.commit
