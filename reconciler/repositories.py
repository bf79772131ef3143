"""The mirrors of a state directory: one for each URL, looked at once in a pass however many use it."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
import trio

from reconciler.errors import UnknownRevision
from reconciler.git.mirror import Mirror, Refs
from reconciler.git.process import GitOptions
from reconciler.git.signatures import Signatures
from reconciler.git.urls import shown
from reconciler.paths import CommitPaths
from reconciler.spec.model import Repository

log: structlog.stdlib.BoundLogger = structlog.get_logger()

KEPT_COMMITS = 64

CheckBranch = Callable[[Repository, str, str], Awaitable[None]]
"""Given a repository, a branch and the commit at its tip, raises where nothing of it may be used."""


def _nobody() -> None:
    """For callers who count nothing."""


class Repositories:
    """Mirrors by URL. `begin_pass` makes the next `refresh` of each URL look again."""

    def __init__(self, directory: Path, options: GitOptions) -> None:
        self.on_failure: Callable[[], None] = _nobody
        """Told once a pass of each URL that could not be looked at."""
        self._directory = directory
        self._options = options
        self._mirrors: dict[str, Mirror] = {}
        self._looks: dict[str, _Look] = {}
        self._offline = False
        self._commits: OrderedDict[str, CommitPaths] = OrderedDict()
        self.signatures = Signatures()

    def mirror(self, url: str) -> Mirror:
        """The mirror of a URL; raises `GitRefused` for one that may not be used."""
        if url not in self._mirrors:
            name = hashlib.sha256(url.encode()).hexdigest()[:20]
            self._mirrors[url] = Mirror(url, self._directory / f"{name}.git", options=self._options)
        return self._mirrors[url]

    def begin_pass(self, *, offline: bool = False) -> None:
        """`offline`: what the mirrors have is taken for what is there, and nothing is asked."""
        self._offline = offline
        self._looks.clear()

    def anew(self) -> "Repositories":
        """The same mirrors, looked at again: for whoever must not go by what a pass saw at its start."""
        other = Repositories(self._directory, self._options)
        other._mirrors, other._commits, other.signatures = self._mirrors, self._commits, self.signatures
        return other

    def seen(self, url: str) -> Mapping[str, str] | None:
        """All refs of a repository as this pass found them; None where it did not look, or could not."""
        look = self._looks.get(url)
        return look.refs.all if look is not None and look.refs is not None else None

    def pushed(self, url: str) -> Mapping[str, str]:
        """The refs that this process set, and to what: a wait of an earlier pass may come upon them."""
        return self.mirror(url).own_pushes

    async def ask(self, url: str) -> Mapping[str, str]:
        """All refs as they are at this moment; nothing is fetched, and the pass goes on with what it saw."""
        return await self.mirror(url).remote_refs()

    async def commit_paths(self, url: str, commit: str) -> CommitPaths:
        """The files of a commit; those of the last few are kept with all digests made of them."""
        known = self._commits.pop(commit, None) or CommitPaths(await self.mirror(url).tree(commit))
        self._commits[commit] = known
        while len(self._commits) > KEPT_COMMITS:
            self._commits.popitem(last=False)
        return known

    async def refresh(self, url: str) -> Refs:
        """The refs of a repository: one look over the network for each URL in a pass."""
        mirror = self.mirror(url)
        look = self._looks.setdefault(url, _Look())
        async with look.lock:
            if look.error is not None:
                raise look.error
            if look.refs is None:
                try:
                    look.refs = await (mirror.refs() if self._offline else mirror.refresh())
                except Exception as error:
                    look.error = error
                    self.on_failure()
                    raise
                for branch in look.refs.rewound:
                    log.warning("a branch lost commits: it was force-pushed", url=shown(url), branch=branch)
            return look.refs


class _Look:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.refs: Refs | None = None
        self.error: Exception | None = None


class BranchFiles:
    """Files of a spec's repositories at the tips of their branches, as of this pass's look at each."""

    def __init__(
        self, repositories: Repositories, named: Mapping[str, Repository], check: CheckBranch
    ) -> None:
        self._repositories = repositories
        self._named = named
        self._check = check

    def identity(self, repository: str, /) -> tuple[str, str, str, str]:
        """Another one for another URL, branch or rule about signatures."""
        known = self._named[repository]
        return known.url, known.branch, known.verify.signatures, known.verify.allowed_signers or ""

    async def read(self, repository: str, path: str, /, *, max_size: int) -> bytes | None:
        """A file's content; None where there is none. Raises as `Mirror.refresh` and `Mirror.read_file`."""
        mirror, commit = await self._tip(repository)
        return await mirror.read_file(commit, path, max_size=max_size)

    async def version(self, repository: str, path: str, /) -> str:
        """The file's object id; empty where there is none."""
        mirror, commit = await self._tip(repository)
        entry = await mirror.entry(commit, path)
        return "" if entry is None else entry.oid

    async def _tip(self, repository: str) -> tuple[Mirror, str]:
        known = self._named[repository]
        commit = (await self._repositories.refresh(known.url)).heads.get(known.branch)
        if commit is None:
            raise UnknownRevision(
                f"{shown(known.url)} has no branch {shown(known.branch)!r}", hint="check the name, or push it"
            )
        await self._check(known, known.branch, commit)
        return self._repositories.mirror(known.url), commit
