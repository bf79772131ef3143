"""Changes of the spec as commits that a running primary makes for somebody, by git's plumbing in its mirror.

Whoever asks is the author, trueup the committer. What is judged is what is pushed on: if somebody else's
push comes first, the change is made anew on theirs. Nothing is pushed that adds a problem to the spec.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
import trio

from reconciler.errors import GitRefused, TrueupError, UnknownRevision
from reconciler.git.mirror import TRUEUP, Mirror
from reconciler.spec_edit import Edit, EditRefused, Files, diff_of, edited
from reconciler.spec_source import files_at

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_TRIES: Final = 16
"""Pushes of one change. A try is lost only when another writer's succeeded or is under way."""
MAX_PAUSE: Final = 0.05
"""Seconds, times the number of lost tries: the longest pause before the next one, drawn at random."""


T = TypeVar("T")


class SpecContended(TrueupError):
    """Others kept moving the spec's branch; the change was not made."""

    reason = "SpecContended"
    retryable = True


class BranchProtected(EditRefused):
    """The server does not let trueup push to the spec's branch: the change has to go another way."""

    reason = "BranchProtected"

    def __init__(self, message: str, written: "Written") -> None:
        super().__init__(message, hint="put the lines into a pull request")
        self.written = written
        self.join = ""
        """Where the lines give a node a token: the command to join with it, which is told only here."""


@dataclass(frozen=True, slots=True)
class Written:
    """A change that was made, or would be. `commit` is empty where none was: nothing differs, or nothing is
    to be done yet."""

    parent: str
    message: str
    author: str
    diff: str
    commit: str = ""


class SpecWriter:
    """Use one object for each process: its changes come one after the other."""

    def __init__(self, mirror: Mirror, branch: str) -> None:
        self._mirror = mirror
        self._branch = branch
        self._ref = f"refs/heads/{branch}"
        self._writing = trio.Lock()

    async def write(
        self, edit: Edit, *, author: str, expected: str | None = None, dry_run: bool = False
    ) -> Written:
        """Make the change as one commit of `author` (`Name <email>`) on the tip of the branch.

        `expected`: the commit that whoever asks has seen; EditRefused if the spec says something else by now.
        `dry_run`: only say what would be done. Raises what `edited` raises, BranchProtected with the lines,
        SpecContended, GitUnavailable.
        """
        async with self._writing:
            for tries in range(MAX_TRIES):
                if tries:
                    await trio.sleep(random.uniform(0, MAX_PAUSE * tries))  # noqa: S311 - spreads writers
                await self._mirror.refresh()
                parent = await self._mirror.commit_of(self._ref)
                files = await files_at(self._mirror, parent)
                if expected is not None and expected != parent:
                    await self._require_same(expected, parent, files)
                changed = await trio.to_thread.run_sync(edited, files, edit)
                diff = await trio.to_thread.run_sync(diff_of, files, changed)
                written = Written(parent, edit.message, author, diff)
                if dry_run or not changed:
                    return written
                tree = await self._mirror.write_tree(parent, dict(changed))
                commit = await self._mirror.write_commit(
                    tree, [parent], f"{edit.message}\n", author=author, committer=TRUEUP
                )
                if await self._push(commit, parent, written):
                    log.info("committed to the spec", commit=commit, what=edit.message, by=author)
                    return Written(parent, edit.message, author, written.diff, commit)
        raise SpecContended(
            f"others changed {self._branch} {MAX_TRIES} times while this was to be pushed",
            hint="try again in a moment",
        )

    async def read(self, look: Callable[[Files], T]) -> T:
        """What the files of the branch's tip say now. Raises what `look` raises, GitUnavailable."""
        async with self._writing:
            await self._mirror.refresh()
            files = await files_at(self._mirror, await self._mirror.commit_of(self._ref))
        return await trio.to_thread.run_sync(look, files)

    async def _push(self, commit: str, parent: str, written: Written) -> bool:
        try:
            return await self._mirror.push(self._ref, commit, expected=parent)
        except GitRefused as error:
            raise BranchProtected(error.message, written) from None

    async def _require_same(self, expected: str, parent: str, files: Files) -> None:
        """What else is in the repository may change: the form that was shown is about the spec."""
        try:
            before = await files_at(self._mirror, expected)
        except UnknownRevision:
            before = {}
        if before != files:
            raise EditRefused(
                f"the spec was changed since: it is at {parent[:12]}, and not at {expected[:12]} any more",
                hint="look at it again, and repeat what should be changed",
            )
