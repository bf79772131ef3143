"""Whether a target still is as it was left: by `lstat`, and by reading only what that leaves in doubt.

Looks beside whatever tasks do, and holds nobody up: it takes no lock, and counts for nothing if a task was
at work meanwhile. Nothing is changed.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import trio

from agent.folders import Folders
from agent.ignore import Ignore
from agent.index import PERMISSIONS, ancestors
from agent.manifest import Manifest, Placed, load, other_targets, state_of
from agent.owners import Owners
from agent.ownership import Names, spread
from agent.rules import AgentRules
from agent.scan import Found, hash_files, look_at, scan, settled
from agent.target import Target, check_target, open_target, private_inside
from agent.wire.messages import Entry

SLICE = 5_000
"""Entries that one call into a worker thread looks at, as cancellation waits for it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`digest` stands for what differs, from what manifest; empty where nothing does."""

    project: str
    target: str
    digest: bytes = b""
    count: int = 0


@dataclass(slots=True)
class Remembered:
    """What a look leaves for the next one at the same target: digests alone, however large that is."""

    seen: bytes = b""
    """Of all that `lstat` showed, if whatever had to be read was read at leisure."""
    found: Difference | None = None
    manifest: bytes = b""
    rendered: bytes = b""
    """Of the rendered files at the first look after that one was saved: their content is noted nowhere."""


async def compare(
    record: Path, *, rules: AgentRules, state_dir: Path, memory: Remembered
) -> Difference | None:
    """What differs in the target whose manifest is `record`; None where nobody can say now.

    Raises TrueupError and OSError for what cannot be looked at, which is not the same as gone.
    """
    before = await trio.to_thread.run_sync(state_of, record)
    manifest = await trio.to_thread.run_sync(load, record)
    if manifest is None or manifest.pending or manifest.deleting:
        return None  # a task is at work, or was cut off: the next one sees to it
    check_target(manifest.target, rules.roots)
    target = await trio.to_thread.run_sync(lambda: open_target(manifest.target, rules.roots, create=False))
    if target is None:
        difference = Difference(
            manifest.project, manifest.target, _digest(before, ["gone"]), max(1, len(manifest.placed))
        )
    else:
        try:
            look = _Look(target, manifest, before)
            difference = await look.run(rules, state_dir, memory)
        finally:
            target.close()
    after = await trio.to_thread.run_sync(state_of, record)
    return difference if before == after else None


@dataclass(slots=True)
class _Look:
    target: Target
    manifest: Manifest
    state: bytes
    seen: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    doubtful: dict[str, tuple[Entry, Found]] = field(default_factory=dict)
    names: Mapping[str, Names] = field(default_factory=dict)
    owners: Owners | None = None

    async def run(self, rules: AgentRules, state_dir: Path, memory: Remembered) -> Difference:
        manifest = self.manifest
        if manifest.owners:
            paths = (item.entry.path for item in manifest.placed)
            self.names = await trio.to_thread.run_sync(spread, paths, manifest.owned)
            self.owners = await trio.to_thread.run_sync(Owners, rules.owners)
        placed = iter(manifest.placed)
        while await trio.to_thread.run_sync(self._look_at_some, list(islice(placed, SLICE))):
            pass
        if manifest.delete_foreign:
            foreign = await trio.to_thread.run_sync(self._foreign, rules, state_dir)
            self.seen += foreign
            self.differing += foreign
        await trio.to_thread.run_sync(self._look_at_rendered, memory)
        seen = await trio.to_thread.run_sync(_digest, self.state, self.seen)
        if memory.found is not None and memory.seen == seen:
            return memory.found
        at_leisure = await self._read_doubtful()
        differing = sorted(self.differing)
        difference = Difference(
            manifest.project,
            manifest.target,
            await trio.to_thread.run_sync(_digest, self.state, differing) if differing else b"",
            len(differing),
        )
        memory.seen, memory.found = seen if at_leisure else b"", difference
        return difference

    def _look_at_some(self, some: list[Placed]) -> bool:
        with Folders(self.target.fd) as folders:
            for item in some:
                if item.kept:
                    continue  # somebody else's by policy
                found = look_at(folders, item.entry.path)
                shown = _shown(item.entry.path, found)
                self.seen.append(shown)
                if not self._may_hold(item.entry, found) or self._is_anothers(item.entry, found):
                    self.differing.append(shown)
                elif found is not None and item.entry.kind == "file" and not _is_as_then(item, found):
                    self.doubtful[item.entry.path] = item.entry, found
        return bool(some)

    def _may_hold(self, entry: Entry, found: Found | None) -> bool:
        if found is None or found.kind != entry.kind:
            return False
        if entry.kind == "symlink":
            return found.link == entry.link
        if self.manifest.tree_has_modes and found.mode & PERMISSIONS != entry.mode & PERMISSIONS:
            return False
        return entry.kind == "directory" or found.size == entry.size

    def _is_anothers(self, entry: Entry, found: Found | None) -> bool:
        pair = self.names.get(entry.path)
        return (
            pair is not None
            and found is not None
            and self.owners is not None
            and self.owners.differs(pair, found)
        )

    def _foreign(self, rules: AgentRules, state_dir: Path) -> list[str]:
        """What lies there that has to go; what nobody may touch is none of it, nor what holds that."""
        manifest = self.manifest
        reserved = {
            *private_inside(manifest.target, rules.roots, rules.private),
            *manifest.rendered,
            *other_targets(state_dir, manifest.target),
        }
        result = scan(self.target.fd, Ignore(manifest.ignore), reserved=reserved)
        ours = {item.entry.path for item in manifest.placed}.union(manifest.above_rendered)
        protected = {above for path in (*reserved, *result.ignored) for above in ancestors(path)}
        return [
            _shown(path, found)
            for path, found in result.found.items()
            if path not in ours and path not in protected
        ]

    def _look_at_rendered(self, memory: Remembered) -> None:
        """Rendered files are known by their first look alone: one that is another since, or gone, differs."""
        with Folders(self.target.fd) as folders:
            found = {path: look_at(folders, path) for path in self.manifest.rendered}
        shown = [_shown(path, each) for path, each in found.items()]
        now = _digest(b"", shown)
        if memory.manifest != self.state:
            memory.manifest, memory.rendered = self.state, now
        self.seen += shown
        if now != memory.rendered:
            self.differing += shown
        else:
            self.differing += [_shown(path, each) for path, each in found.items() if each is None]

    async def _read_doubtful(self) -> bool:
        """Read what `lstat` does not decide. True: whoever changes it later changes what `lstat` shows."""
        if not self.doubtful:
            return True
        began = time.time_ns()
        read = await hash_files(self.target.fd, [(path, found) for path, (_, found) in self.doubtful.items()])
        for path, (entry, found) in self.doubtful.items():
            if read.get(path) != entry.blocks:
                self.differing.append(_shown(path, found))
        return all(settled(found, began) for _, found in self.doubtful.values())


def _is_as_then(item: Placed, found: Found) -> bool:
    return item.stamp is not None and item.stamp.fits(found)


def _shown(path: str, found: Found | None) -> str:
    if found is None:
        return f"{path}\0gone"
    times = f"{found.size} {found.mtime_ns} {found.ctime_ns} {found.ino}"
    return f"{path}\0{found.kind} {found.mode:o} {times} {found.link}"


def _digest(state: bytes, shown: Iterable[str]) -> bytes:
    digest = hashlib.sha256(state)
    for piece in _encoded(shown):
        digest.update(piece)
    return digest.digest()


def _encoded(shown: Iterable[str]) -> Iterator[bytes]:
    # Names that are no UTF-8 as the bytes they have on disk.
    return (b"\n" + os.fsencode(each) for each in shown)
