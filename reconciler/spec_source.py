"""Reading the spec from git, at any commit; a broken head falls back to the last good revision."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import trio

from reconciler.errors import Problem, SpecInvalid, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.git.urls import shown
from reconciler.spec.load import SPEC_FILE, Loaded, included_paths, load
from reconciler.spec.mixed import Mixed, with_released
from reconciler.spec.model import Spec
from reconciler.spec.released import load_released

MAX_SPEC_FILE = 4 << 20
KEPT_SPECS = 4
KEPT_RELEASES = 16
"""Specs of releases: each environment's units may have one of their own."""


@dataclass(frozen=True, slots=True)
class SpecAt:
    """The spec that a pass works with: the tip of the branch, or the last good commit before it."""

    spec: Spec
    commit: str
    head_commit: str
    head: Loaded
    """What the tip of the branch holds, with its problems; `spec` is its valid part if it has one."""
    used: Loaded
    """What `spec` is of: `head`, or the last good commit, which may have had problems of its own."""
    branch: str
    mixed: Mixed | None = None
    """Where releases bring their own revisions: `spec` is what is put together of all of them."""

    @property
    def revision(self) -> str:
        return f"{self.branch}@sha1:{self.commit}"

    @property
    def problems(self) -> tuple[Problem, ...]:
        return (*self.head.problems, *(self.mixed.problems if self.mixed is not None else ()))

    def is_frozen(self, resource: str) -> bool:
        """Whether a resource id is left out of `spec` because something is wrong with it: it has to stay."""
        if self.mixed is not None:
            return self.mixed.is_frozen(resource) or self.head.is_frozen(resource)
        return self.head.is_frozen(resource) or self.used.is_frozen(resource)


class SpecCache:
    """The specs of the last few commits: a commit never changes, and loading a large spec takes a while."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._released: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
        self._head: tuple[str, dict[str, bytes]] | None = None
        """The files of the newest head that a release was put on."""
        self._loading = trio.Lock()

    async def load(self, mirror: Mirror, commit: str) -> Loaded:
        loaded = self._loaded.pop(commit, None)
        if loaded is None:
            async with self._loading:  # several may ask at once for a commit that is new
                loaded = self._loaded.pop(commit, None) or await load_at(mirror, commit)
        self._loaded[commit] = loaded
        while len(self._loaded) > KEPT_SPECS:
            self._loaded.popitem(last=False)
        return loaded

    async def released(self, mirror: Mirror, head: SpecAt, commit: str) -> Loaded:
        """The spec of a release that was made with the spec's revision `commit`, on what `head` has.

        Raises UnknownRevision for a commit that is no longer there.
        """
        if commit == head.commit:
            return head.used
        key = head.commit, commit
        loaded = self._released.pop(key, None)
        if loaded is None:
            if self._head is None or self._head[0] != head.commit:
                # Each release of a pass is put on the same one.
                self._head = head.commit, await files_at(mirror, head.commit)
            below, above = self._head[1], await files_at(mirror, commit)
            loaded = await trio.to_thread.run_sync(load_released, below, above, commit)
        self._released[key] = loaded
        while len(self._released) > KEPT_RELEASES:
            self._released.popitem(last=False)
        return loaded


async def read_spec(
    mirror: Mirror, branch: str, *, last_good: str | None, cache: SpecCache | None = None
) -> SpecAt:
    """The spec at the tip of the branch; raises `SpecInvalid` if neither it nor the last good one serves."""
    try:
        head = await mirror.commit_of(f"refs/heads/{branch}")
    except UnknownRevision:
        raise UnknownRevision(
            f"{shown(mirror.url)} has no branch {branch!r}", hint="push it, or name another one with --branch"
        ) from None
    cache = cache if cache is not None else SpecCache()
    loaded = await cache.load(mirror, head)
    if loaded.spec is not None:
        return SpecAt(loaded.spec, head, head, loaded, loaded, branch)
    if last_good is not None and last_good != head:
        before = await _load_if_there(cache, mirror, last_good)
        if before is not None and before.spec is not None:
            return SpecAt(before.spec, last_good, head, loaded, before, branch)
    raise SpecInvalid(list(loaded.problems))


async def with_releases(
    spec: SpecAt, revisions: Mapping[tuple[str, str], str], mirror: Mirror, cache: SpecCache
) -> SpecAt:
    """The spec with what each unit and environment of `revisions` has at that commit of the spec.

    A commit that is not there any more leaves what it speaks of as it is, and is told as a problem.
    """
    composites: dict[tuple[str, str], Loaded] = {}
    for place, commit in revisions.items():
        try:
            composites[place] = await cache.released(mirror, spec, commit)
        except UnknownRevision:
            message = f"the spec at {commit[:12]}, which {place[0]} was released with in {place[1]}, is gone"
            composites[place] = Loaded(None, (Problem(SPEC_FILE, 1, 1, "", message),))
    if not composites:
        return spec
    mixed = with_released(spec.used, composites)
    return replace(spec, spec=mixed.spec, mixed=mixed)


async def _load_if_there(cache: SpecCache, mirror: Mirror, commit: str) -> Loaded | None:
    """None for a commit that a force-push took away: then there is nothing to fall back to."""
    try:
        return await cache.load(mirror, commit)
    except UnknownRevision:
        return None


async def load_at(mirror: Mirror, commit: str) -> Loaded:
    """The spec at one commit, with the files that it includes."""
    return await trio.to_thread.run_sync(load, await files_at(mirror, commit))


async def files_at(mirror: Mirror, commit: str) -> dict[str, bytes]:
    """The files of the spec at one commit, by path; none where it has no root file."""
    root = await mirror.read_file(commit, SPEC_FILE, max_size=MAX_SPEC_FILE)
    if root is None:
        return {}
    every_path = [entry.path for entry in await mirror.tree(commit)]
    included = await trio.to_thread.run_sync(included_paths, root, every_path)
    files = await mirror.read_files(commit, included, max_size=MAX_SPEC_FILE)
    return {SPEC_FILE: root, **files}
