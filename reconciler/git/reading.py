"""Reading a mirror: refs, tags, trees, files and commits, without a work tree and without the network.

A mirror that turns out to be damaged is made anew from the remote, once, and read again.
"""

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import trio

from reconciler.errors import GitRefused, UnknownRevision
from reconciler.git.bare import BareRepository
from reconciler.git.failures import MirrorBroken, words_of
from reconciler.git.objects import (
    MIRRORED,
    REF_FORMAT,
    TAGS,
    CommitObject,
    Refs,
    Tag,
    TreeEntry,
    collect_refs,
    is_oid,
    nested_tags,
    parse_batch,
    parse_commit,
    parse_local_refs,
    parse_ls_tree,
)
from reconciler.git.process import GitOptions
from reconciler.git.trees import object_id
from reconciler.git.urls import shown

MAX_LISTING: Final = 256 * 1024 * 1024
"""Bytes of one listing of a tree."""
MAX_READ: Final = 256 * 1024 * 1024
"""Bytes of the files that are read in one call."""
_CACHED_TREES: Final = 64
_CACHED_ENTRIES: Final = 1_000_000
_MAX_COMMIT: Final = 1024 * 1024

_SHORT_OID = re.compile(r"[0-9a-f]{7,40}")

T = TypeVar("T")


class MirrorReader(BareRepository):
    """The reading half of a Mirror. Every method raises GitUnavailable while nothing was ever fetched."""

    def __init__(self, url: str, path: Path, options: GitOptions) -> None:
        super().__init__(url, path, options)
        self._known: tuple[Refs, tuple[Tag, ...]] | None = None
        self._moved = 0
        """Counts the changes of refs: what was read while one was under way is not kept."""
        self._trees: OrderedDict[str, tuple[TreeEntry, ...]] = OrderedDict()
        self._listing = trio.Lock()

    async def refs(self) -> Refs:
        """The refs as the last refresh or push left them."""
        return (await self._refs_and_tags())[0]

    async def tags(self) -> tuple[Tag, ...]:
        """All tags of commits, with the trailers of annotated ones, by name."""
        return (await self._refs_and_tags())[1]

    async def commit_of(self, revision: str) -> str:
        """The commit id of a branch, a tag, a full ref or a commit id of at least 7 digits.

        Names are looked for in this order. Raises UnknownRevision.
        """
        refs = await self.refs()
        commit = refs.heads.get(revision) or refs.tags.get(revision)
        if commit is None and revision.startswith(TAGS):
            commit = refs.tags.get(revision.removeprefix(TAGS))
        # A tag may be of anything, so git says which commit it is.
        candidate = refs.all.get(revision) or (revision if _SHORT_OID.fullmatch(revision) else None)
        if commit is None and candidate is not None:
            commit = await self.mended(lambda: self._commit_id(candidate))
        if commit is None:
            raise self._unknown(revision)
        return commit

    async def tree(self, commit: str) -> tuple[TreeEntry, ...]:
        """All files, links and submodules of a commit, sorted by path; read once and kept.

        Raises UnknownRevision, and GitRefused for a tree over the limits of entries or bytes.
        """
        async with self._listing:
            entries = self._trees.get(commit)
            if entries is None:
                entries = await self.mended(lambda: self._list(commit))
                self._trees[commit] = entries
                total = sum(map(len, self._trees.values()))
                while len(self._trees) > 1 and (len(self._trees) > _CACHED_TREES or total > _CACHED_ENTRIES):
                    total -= len(self._trees.popitem(last=False)[1])
            self._trees.move_to_end(commit)
            return entries

    async def entry(self, commit: str, path: str) -> TreeEntry | None:
        """The file or link at a path of a commit. Raises as `tree`."""
        return next(iter(_at(await self.tree(commit), frozenset([path]))), None)

    async def read_file(self, commit: str, path: str, *, max_size: int) -> bytes | None:
        """A file's content; None where the commit has no file there.

        Raises GitRefused, before anything is read, for a file over `max_size` bytes and for a link.
        """
        return (await self.read_files(commit, [path], max_size=max_size)).get(path)

    async def read_files(self, commit: str, paths: Sequence[str], *, max_size: int) -> dict[str, bytes]:
        """The contents of these files through one child process; paths that are no file are left out.

        Raises as `read_file`, and GitRefused for more than MAX_READ bytes in all.
        """
        entries = _at(await self.tree(commit), frozenset(paths))
        for entry in entries:
            if entry.kind == "symlink":
                raise GitRefused(
                    f"{shown(self.url)}: {shown(entry.path)!r} is a symbolic link",
                    hint="put the file itself there",
                )
            if entry.size > max_size:
                size = f"{entry.size} bytes, the limit is {max_size}"
                raise GitRefused(f"{shown(self.url)}: {shown(entry.path)!r} has {size}")
        if (total := sum(entry.size for entry in entries)) > MAX_READ:
            raise GitRefused(f"{shown(self.url)}: {total} bytes asked for at once, the limit is {MAX_READ}")
        contents = await self.mended(lambda: self._blobs({entry.oid for entry in entries}, total))
        return {entry.path: contents[entry.oid] for entry in entries}

    async def commit_object(self, commit: str) -> CommitObject:
        """A commit's tree, parents, message, author and time. Raises UnknownRevision."""

        async def look() -> CommitObject:
            if not is_oid(commit):
                raise self._unknown(commit)
            found = await self._batch([commit], _MAX_COMMIT)
            kind, content = found.get(commit, ("missing", b""))
            if kind != "commit" or object_id(kind, content) != commit:
                await self._require(commit)
                raise MirrorBroken(f"mirror of {shown(self.url)}: commit {commit} cannot be read")
            return parse_commit(commit, content)

        return await self.mended(look)

    async def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether `descendant` contains `ancestor`; a commit contains itself. Raises UnknownRevision."""

        async def look() -> bool:
            if not (is_oid(ancestor) and is_oid(descendant)):
                raise self._unknown(descendant if is_oid(ancestor) else ancestor)
            result = await self.ask(["merge-base", "--is-ancestor", ancestor, descendant])
            if result.code in (0, 1):
                return result.code == 0
            await self._require(ancestor)
            await self._require(descendant)
            raise MirrorBroken(f"mirror of {shown(self.url)}: {words_of(result.stderr)}")

        return await self.mended(look)

    async def has_patches(self, branch: str, commit: str) -> bool:
        """Whether `commit` has each change that `branch` has over their common ancestor, as the same commit
        or as an equal patch, such as a cherry-pick (`git help cherry`). Raises UnknownRevision."""

        async def look() -> bool:
            if not (is_oid(branch) and is_oid(commit)):
                raise self._unknown(commit if is_oid(branch) else branch)
            result = await self.ask(["cherry", commit, branch])
            if result.code == 0:
                return not any(line.startswith(b"+") for line in result.stdout.split(b"\n"))
            await self._require(branch)
            await self._require(commit)
            raise MirrorBroken(f"mirror of {shown(self.url)}: {words_of(result.stderr)}")

        return await self.mended(look)

    async def mended(self, look: Callable[[], Awaitable[T]]) -> T:
        """What `look` finds; on a damaged mirror, after making it anew."""
        try:
            return await look()
        except MirrorBroken:
            async with self.exclusive() as lock:
                if not self.is_there():
                    raise self.not_fetched() from None
                try:
                    # Another task or process may have mended it, or was putting a new copy in place.
                    return await look()
                except MirrorBroken:
                    await self.rebuild(lock)
                    self._forget_refs()
        return await look()

    async def _refs_and_tags(self) -> tuple[Refs, tuple[Tag, ...]]:
        while self._known is None:
            moved = self._moved
            loaded = await self.mended(self._load_refs)
            if moved == self._moved:
                self._known = loaded
        return self._known

    def _forget_refs(self) -> None:
        """To be called once refs have changed on the disk."""
        self._known = None
        self._moved += 1

    async def _load_refs(self) -> tuple[Refs, tuple[Tag, ...]]:
        output = await self.look(["for-each-ref", f"--format={REF_FORMAT}", *MIRRORED])
        refs = parse_local_refs(output)
        nested = {oid: await self._commit_id(oid) for oid in nested_tags(refs)}
        return collect_refs(refs, {oid: commit for oid, commit in nested.items() if commit})

    async def _list(self, commit: str) -> tuple[TreeEntry, ...]:
        if not is_oid(commit):
            raise self._unknown(commit)
        try:
            output = await self.look(["ls-tree", "-rz", "-l", "--full-tree", commit], max_output=MAX_LISTING)
        except MirrorBroken:
            await self._require(commit)
            raise
        return await trio.to_thread.run_sync(parse_ls_tree, output)

    async def _blobs(self, oids: set[str], total: int) -> Mapping[str, bytes]:
        found = await self._batch(sorted(oids), total) if oids else {}
        contents = {oid: content for oid, (kind, content) in found.items() if object_id(kind, content) == oid}
        if len(contents) != len(oids):
            lost = min(oids - contents.keys())
            raise MirrorBroken(f"mirror of {shown(self.url)}: object {lost} cannot be read")
        return contents

    async def _batch(self, oids: Sequence[str], total: int) -> dict[str, tuple[str, bytes]]:
        """The objects of these ids, of `total` bytes together, that are there."""
        request = "".join(f"{oid}\n" for oid in oids).encode()
        header = 128
        output = await self.look(
            ["cat-file", "--batch"], stdin=request, max_output=total + header * len(oids)
        )
        return parse_batch(output)

    async def _commit_id(self, oid: str) -> str | None:
        """The commit that an object id, whole or short, leads to; None when it leads to none."""
        output = await self.look(["cat-file", "--batch-check"], stdin=f"{oid}^{{commit}}\n".encode())
        found, _, kind = output.decode().strip().partition(" ")
        return found if kind.startswith("commit ") else None

    async def _require(self, commit: str) -> None:
        """UnknownRevision unless this commit is here; MirrorBroken when it is not and a ref names it."""
        if is_oid(commit) and await self._commit_id(commit) == commit:
            return
        refs = (self._known or await self._load_refs())[0]
        if commit in refs.heads.values() or commit in refs.tags.values():
            raise MirrorBroken(f"mirror of {shown(self.url)}: commit {commit} is missing")
        raise self._unknown(commit)

    def _unknown(self, revision: str) -> UnknownRevision:
        return UnknownRevision(
            f"{shown(self.url)} has no branch, tag or commit {shown(revision)!r}",
            hint="check the name, or push it",
        )


def _at(entries: Sequence[TreeEntry], paths: frozenset[str]) -> list[TreeEntry]:
    """The files and links at these paths; `entries` are sorted by path."""
    found = []
    for path in sorted(paths):
        at = bisect_left(entries, path, key=lambda entry: entry.path)
        if at < len(entries) and entries[at].path == path and entries[at].kind != "submodule":
            found.append(entries[at])
    return found
