"""A repository as the daemon uses it: mirrored into the state directory, read there, pushed to with a lease.

`refresh` asks the remote once what it has and fetches only when something moved. Objects are written
without a work tree and without touching refs; `push` moves one ref of the remote by compare-and-swap.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import GitRefused, UnknownRevision
from reconciler.git.failures import failure
from reconciler.git.objects import (
    LEASE_REF,
    MIRRORED,
    CommitObject,
    Refs,
    Tag,
    TreeEntry,
    is_oid,
    parse_ls_remote,
)
from reconciler.git.process import GitOptions
from reconciler.git.pushes import push_arguments, pushed
from reconciler.git.reading import MirrorReader
from reconciler.git.trees import changed_tree, pack
from reconciler.git.urls import check_ref, shown

__all__ = ["TRUEUP", "CommitObject", "GitOptions", "Mirror", "Refs", "Tag", "TreeEntry"]

TRUEUP: Final = "trueup <trueup@localhost>"
"""Who made a commit that nobody else has made."""

_PERSON = re.compile(r"([^<>\n\0]+) <([^<>\n\0]+)>")


class Mirror(MirrorReader):
    """The mirror of the repository at `url`, a bare repository at `path` (made by the first refresh).

    `options` carries all of the operator's choices; where it is given, `allow_local` and `deadline` (seconds
    of one command) are not looked at. Raises GitRefused for a URL that is not allowed.
    """

    def __init__(
        self,
        url: str,
        path: Path,
        *,
        allow_local: bool = False,
        deadline: float = 60.0,
        options: GitOptions | None = None,
    ) -> None:
        super().__init__(url, path, options or GitOptions(allow_local=allow_local, deadline=deadline))
        self.own_pushes: dict[str, str] = {}
        """The refs that `push` has set, and to what."""
        self.lease: str | None = None
        """The id of the lease as the last look at the remote found it; it is looked at in passing."""

    async def refresh(self) -> Refs:
        """What the remote has now, with all of it here; `rewound` names branches that lost commits.

        One ls-remote, and nothing more when nothing moved. A copy that is missing or damaged is made anew.
        Raises GitUnavailable, GitRefused for objects that git's own check refuses, GitFailed.
        """
        remote = await self.remote_refs()
        before = await self.refs() if self.is_there() else None
        if before is not None and dict(before.all) == remote:
            return before
        async with self.exclusive() as lock:
            await self.catch_up(lock)
            self._forget_refs()
        after = await self.refs()
        return replace(after, rewound=await self._rewound(before, after))

    async def write_tree(self, base: str | None, changes: Mapping[str, bytes | None]) -> str:
        """The id of a new tree: that of commit `base` (None: an empty one) with these files changed.

        `changes`: path to content, or None to remove it. No ref is touched. Raises UnknownRevision, and
        GitRefused for a path that cannot be placed.
        """
        entries = () if base is None else await self.tree(base)
        tree, objects = await trio.to_thread.run_sync(changed_tree, entries, changes)
        packed = await trio.to_thread.run_sync(pack, objects)
        async with self.exclusive() as lock:
            await self.write(["unpack-objects", "-q", "--strict"], lock, stdin=packed)
        return tree

    async def write_commit(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        *,
        author: str = TRUEUP,
        committer: str | None = None,
    ) -> str:
        """The id of a new commit, dated now; `author` reads `Name <email>`, and is the committer too where
        none is named. No ref is touched."""
        people = {"AUTHOR": split_person(author), "COMMITTER": split_person(committer or author)}
        if not all(map(is_oid, (tree, *parents))):
            raise GitRefused("a commit is made of whole object ids")
        env = {
            f"GIT_{role}_{part}": value
            for role, (name, email) in people.items()
            for part, value in (("NAME", name), ("EMAIL", email))
        }
        args = ["commit-tree", tree, *(word for parent in parents for word in ("-p", parent)), "-F", "-"]
        async with self.exclusive() as lock:
            output = await self.write(args, lock, stdin=message.encode(), env=env)
        return output.decode().strip()

    async def push(self, ref: str, commit: str, *, expected: str | None) -> bool:
        """Set the remote's `ref` (a full name) to an object that is here, if it still is at `expected`.

        `expected` None: only if there is no such ref. True also when the ref has the new value already, as
        after an answer that was lost. False when another writer was first. Raises GitRefused with the
        server's words (a hook, a protected branch), GitUnavailable when it cannot be reached.
        """
        if not check_ref(ref).startswith("refs/"):
            raise GitRefused(f"{shown(ref)!r} is not a full ref name", hint=f"write refs/heads/{shown(ref)}")
        if not is_oid(commit) or not (expected is None or is_oid(expected)):
            raise GitRefused("a push names whole object ids")
        args = push_arguments(self.url, ref, commit, expected=expected)
        # Under the lock, so that no fetch can record a newer value of the ref before ours is recorded.
        async with self.exclusive() as lock:
            if not self.is_there():
                raise self.not_fetched()
            result = await self.talk(args, git_dir=self.path, lock=lock, transfer=True)
            if not pushed(result, self.url, ref):
                return False
            self.own_pushes[ref] = commit
            try:
                if ref.startswith(MIRRORED):
                    await self.write(["update-ref", ref, commit], lock)
            finally:
                self._forget_refs()
        return True

    async def remote_refs(self) -> dict[str, str]:
        """Full ref name to object id, of what is mirrored, as the remote has it now. Raises as `refresh`."""
        # The patterns thin out the answer here; the protocol cannot ask for three prefixes at once.
        patterns = [*(f"{prefix}*" for prefix in MIRRORED), LEASE_REF]
        result = await self.talk(["ls-remote", "--", self.url, *patterns])
        if result.code:
            raise failure(result.code, result.stderr, self.url)
        refs = parse_ls_remote(result.stdout, self.url, (*MIRRORED, LEASE_REF))
        self.lease = refs.pop(LEASE_REF, None)
        return refs

    async def _rewound(self, before: Refs | None, after: Refs) -> tuple[str, ...]:
        """Branches whose new commit does not contain the old one."""
        rewound = []
        for name, old in before.heads.items() if before else ():
            new = after.heads.get(name)
            if new is None or new == old:
                continue
            # The whole history is here, so an old commit that is not was dropped from it.
            try:
                if not await self.is_ancestor(old, new):
                    rewound.append(name)
            except UnknownRevision:
                rewound.append(name)
        return tuple(sorted(rewound))


def split_person(text: str) -> tuple[str, str]:
    """Name and address of `Name <email>`, as authors and taggers are written. Raises GitRefused."""
    person = _PERSON.fullmatch(text)
    if person is None:
        raise GitRefused(f"{shown(text)!r} is not of the form `Name <email>`")
    return person[1], person[2]
