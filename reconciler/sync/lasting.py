"""Checkouts that outlive the pass that made them, with the trees that were hashed in them.

A node that was away, and a step that is tried again, then cost no other checkout and no other hashing; and
another commit costs only those files that it changes, as it is made of the last one. Those used last are
kept, within bounds; all go with the primary.
"""

import os
from collections.abc import Hashable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_IFDIR
from typing import Final

import trio

from agent.index import PERMISSIONS
from agent.scan import Found, hash_files
from reconciler.sync.hashed import Hashed, told_apart
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Hash

MOST: Final = 4
MAX_BYTES: Final = 2 * 1024**3
MAX_FILES: Final = 500_000
"""Checkouts that are kept while nobody uses them, and what their trees may hold together."""

Key = tuple[str, str, str]
"""URL of a repository, id of a project, commit."""


@dataclass(eq=False)
class Checkout:
    """A directory that goes with `held`, and what was hashed in it, by the rules that chose it."""

    directory: Path
    held: AsyncExitStack
    trees: dict[Hashable, TreeSource] = field(default_factory=dict)
    earlier: Mapping[Hashable, TreeSource] = field(default_factory=dict)
    """What was hashed in it while it was one of another commit."""
    users: int = 1
    is_good: bool = True
    """Whether it was looked at since somebody uses it; who made it knows it."""
    looking: trio.Lock = field(default_factory=trio.Lock)

    @property
    def bytes(self) -> int:
        return max((tree.bytes for tree in self.trees.values()), default=0)

    @property
    def files(self) -> int:
        return sum(tree.files for tree in self.trees.values())

    def is_untouched(self) -> bool:
        """Whether each file that was hashed is what it was, at a glance, and each directory has its mode;
        blocks."""
        for tree in self.trees.values():
            for path, there in tree.found.items():
                status = _status(f"{tree.directory}/{path}")
                if status is None or not there.is_file_still(status):
                    return False
            for entry in tree.entries:
                if entry.kind == "directory":
                    status = _status(f"{tree.directory}/{entry.path}")
                    if status is None or status.st_mode & (S_IFDIR | PERMISSIONS) != S_IFDIR | entry.mode:
                        return False
        return True

    def hashed_earlier(self) -> dict[str, Hashed]:
        """What is known of all files that were in it, by path."""
        return {
            f"{tree.directory}/{entry.path}": Hashed(tree.found[entry.path], entry.blocks)
            for tree in self.earlier.values()
            for entry in tree.entries
            if entry.kind == "file"
        }


def hash_others(directory: Path, known: Mapping[str, Hashed]) -> Hash:
    """Hashes those files below `directory` that are not as they are `known`."""

    async def hash(root_fd: int, files: Iterable[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        contents, others = told_apart(files, known, below=f"{directory}/")
        contents.update(await hash_files(root_fd, others))
        return contents

    return hash


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


class LastingCheckouts:
    """Of a primary. What is borrowed or made is given back with `release`."""

    def __init__(self, *, most: int = MOST, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._listed: dict[Key, Checkout] = {}
        """Those used last come last."""
        self._is_closed = False

    async def borrow(self, key: Key) -> Checkout | None:
        """A checkout that is at hand. One that somebody else changed is none."""
        found = self._listed.get(key)
        if found is None:
            return None
        found.users += 1
        try:
            async with found.looking:
                found.is_good = found.is_good or await trio.to_thread.run_sync(found.is_untouched)
        except BaseException:
            await self.release(key, found)
            raise
        if found.is_good:
            return found
        self.forget(found)
        await self.release(key, found)
        return None

    def idle_commit(self, url: str, project: str) -> str | None:
        """The commit of the project's checkout that was used last, of those that nobody uses."""
        for key, each in reversed(self._listed.items()):
            if not each.users and key[:2] == (url, project):
                return key[2]
        return None

    async def take(self, key: Key) -> Checkout | None:
        """One that nobody uses; it is the caller's alone from now on, who makes another of it or removes it
        with `close_one`. One that somebody else changed is none."""
        found = self._listed.get(key)
        if found is None or found.users:
            return None
        del self._listed[key]
        try:
            is_untouched = await trio.to_thread.run_sync(found.is_untouched)
        except BaseException:
            await close_one(found)
            raise
        if is_untouched:
            return found
        await close_one(found)
        return None

    def forget(self, checkout: Checkout) -> None:
        """Nobody borrows it from now on; it goes with its last user."""
        self._listed = {key: each for key, each in self._listed.items() if each is not checkout}

    def made(self, key: Key, checkout: Checkout) -> None:
        """One that others may borrow from now on, unless there is one already."""
        self._listed.setdefault(key, checkout)

    async def release(self, key: Key, checkout: Checkout) -> None:
        """One user fewer; what is one too many, and nobody uses, goes."""
        checkout.users -= 1
        if checkout.users:
            return
        checkout.is_good = False
        gone = [checkout]
        if self._listed.get(key) is checkout:
            del self._listed[key]
            checkout.earlier = {}
            if checkout.trees and not self._is_closed:
                self._listed[key] = checkout
                gone = self._surplus()
        await _close(gone)

    def _surplus(self) -> list[Checkout]:
        """Takes out what is beyond the bounds, of what nobody uses."""
        gone = []
        count = total = files = 0
        for key, each in reversed(list(self._listed.items())):
            if each.users:
                continue
            count, total, files = count + 1, total + each.bytes, files + each.files
            if count > self._most or total > self._max_bytes or files > self._max_files:
                gone.append(self._listed.pop(key))
        return gone

    async def close(self) -> None:
        """What is in use goes when it is given back."""
        self._is_closed = True
        idle = {key: each for key, each in self._listed.items() if not each.users}
        for key in idle:
            del self._listed[key]
        await _close(idle.values())


async def close_one(checkout: Checkout) -> None:
    """Removes one that nobody else uses."""
    await _close([checkout])


async def _close(checkouts: Iterable[Checkout]) -> None:
    with trio.CancelScope(shield=True):
        for each in checkouts:
            await each.held.aclose()
