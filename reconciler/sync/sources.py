"""What projects are synced from: a directory as it was looked at, or one checkout and one build for each
project and commit of a pass.

However many targets a project has, its tree is checked out, built, scanned and hashed once. Where nothing is
built, a later pass may find it so.
"""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import structlog
import trio

from agent.errors import PathRefused
from reconciler.apply import Details
from reconciler.deploy.build import BuildRequest, run_build
from reconciler.deploy.context import RunContext
from reconciler.desired import DesiredSync
from reconciler.desired_model import directory_key
from reconciler.directories import DirectoryLook, Looks
from reconciler.errors import StepFailed, TrueupError
from reconciler.git.checkout import checkout, may_switch, switch
from reconciler.git.mirror import Mirror
from reconciler.identity import project_id
from reconciler.mishaps import line_for_log
from reconciler.repositories import Repositories
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Spec
from reconciler.sync.lasting import Checkout, Key, LastingCheckouts, close_one, hash_others
from reconciler.sync.selection import Selection
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Growing

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TreeRules = tuple[str, bool, tuple[tuple[str, ...], ...]]
"""Of a project: its directory, whether permissions are left alone, and what chooses its files."""

TreeKey = tuple[tuple[str, str], TreeRules]
"""Of a project and commit as well."""


class ProjectSources:
    """Checkouts and scanned trees of one pass; what `lasting` does not keep is removed when it is left."""

    def __init__(
        self,
        spec: Spec,
        repositories: Repositories,
        checkouts: Path,
        context: RunContext,
        directories: Looks = MappingProxyType({}),
        lasting: LastingCheckouts | None = None,
    ) -> None:
        """`directories`: trees of projects without a repository, as when the pass was planned.
        `lasting`: what other passes have left; None: nothing, and nothing is left to them."""
        self._spec = spec
        self._repositories = repositories
        self._checkouts = checkouts
        self._context = context
        self._live = directories
        self._lasting = LastingCheckouts(most=0) if lasting is None else lasting
        self._stack = AsyncExitStack()
        self._locks: dict[tuple[str, str], trio.Lock] = {}
        self._held: dict[tuple[str, str], Checkout] = {}
        self._trees: dict[TreeKey, TreeSource] = {}
        self._hashing: AbstractAsyncContextManager[trio.Nursery]
        self._nursery: trio.Nursery

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._hashing = trio.open_nursery()
        self._nursery = await self._hashing.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            # What ends the pass stays what it was: only hashing's own failures would come as a group.
            await self._hashing.__aexit__(None, None, None)
        finally:
            await self._stack.__aexit__(kind, error, trace)

    async def build(self, sync: DesiredSync) -> Details:
        """Run the project's build in its checkout."""
        project, revision = sync.project, sync.revision
        assert project.build is not None and revision is not None
        async with self._lock(sync):
            directory = (await self._checkout(sync)).directory
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

    async def tree(self, sync: DesiredSync, *, whole: bool = True) -> TreeSource:
        """The scanned tree for one target, shared with all targets that have the same rules.

        Without `whole`, its files may still be being hashed.
        """
        source = await self._tree(sync)
        return await source.whole() if whole else source

    async def _tree(self, sync: DesiredSync) -> TreeSource:
        project, target = sync.project, sync.target
        if project.source is not None:
            found = self._live[directory_key(project, target)]
            assert isinstance(found, DirectoryLook)  # a step has no setback
            return found.source
        reserved = tuple(file.path for file in project.files)
        chosen = sync.ignore, target.include, target.exclude, reserved
        rules = project.path, project.sync.ignore_permissions, chosen
        key = _key(sync), rules
        async with self._lock(sync):
            held = await self._checkout(sync)
            if (whole := held.trees.get(rules)) is not None:
                return whole
            if key not in self._trees:
                directory = _below(held.directory, sync)
                before = held.earlier.get(rules)
                known = {} if before else await trio.to_thread.run_sync(held.hashed_earlier)
                growing = await Growing.begin(
                    directory,
                    Selection(*chosen),
                    ignore_permissions=project.sync.ignore_permissions,
                    hash=hash_others(directory, known),
                    before=before,
                )
                if growing.gains:
                    self._trees[key] = growing.source
                    self._nursery.start_soon(self._grow, key, growing, held)
                else:
                    await growing.run()
                    held.trees[rules] = await growing.whole()
                    return held.trees[rules]
            return self._trees[key]

    async def _grow(self, key: TreeKey, growing: Growing, held: Checkout) -> None:
        await growing.run()
        if not growing.failed:  # else whoever comes next tries again
            held.trees[key[1]] = await growing.whole()
        del self._trees[key]

    def doubt(self, sync: DesiredSync) -> None:
        """Something was not there as it was hashed: nobody else begins with that, nor with what it lay in."""
        if (held := self._held.get(_key(sync))) is None:
            return
        held.trees.clear()
        if sync.project.build is None:  # what was built is nowhere else
            del self._held[_key(sync)]
            self._lasting.forget(held)

    def _lock(self, sync: DesiredSync) -> trio.Lock:
        return self._locks.setdefault(_key(sync), trio.Lock())

    async def _checkout(self, sync: DesiredSync) -> Checkout:
        key, project = _key(sync), sync.project
        if key not in self._held:
            assert project.repository is not None
            url = self._spec.repositories[project.repository].url
            # What a build leaves is nothing that a later build could begin with.
            lasting = self._lasting if project.build is None else LastingCheckouts(most=0)
            found = await lasting.borrow((url, *key))
            if found is None:
                mirror = self._repositories.mirror(url)
                found = await _made_of_another(lasting, mirror, (url, *key))
                if found is None:
                    stack = AsyncExitStack()
                    directory = await stack.enter_async_context(
                        checkout(mirror, key[1], under=self._checkouts)
                    )
                    found = Checkout(directory, stack)
                lasting.made((url, *key), found)
            self._stack.push_async_callback(lasting.release, (url, *key), found)
            self._held[key] = found
        return self._held[key]


async def _made_of_another(lasting: LastingCheckouts, mirror: Mirror, key: Key) -> Checkout | None:
    """A checkout of the project's that nobody uses, made one of this commit; None where that does not go."""
    url, project, commit = key
    before = lasting.idle_commit(url, project)
    if before is None or not await may_switch(mirror, before, commit):
        return None
    found = await lasting.take((url, project, before))
    if found is None:
        return None
    try:
        await switch(mirror, found.directory, commit)
        return Checkout(found.directory, found.held, earlier=found.trees)
    except (TrueupError, OSError) as error:
        await close_one(found)
        log.warning("a checkout is made anew", project=project, commit=commit, error=line_for_log(error))
        return None
    except BaseException:
        await close_one(found)
        raise


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
