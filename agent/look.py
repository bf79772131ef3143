"""What a target holds, set against the manifest: what is ours, what was edited, what is foreign.

Looking changes nothing. A file whose stamp fits is believed to hold what the manifest says; any other
is read.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from agent.changes import Seen
from agent.ignore import Ignore
from agent.index import (
    PERMISSIONS,
    ancestors,
    directory_entry,
    file_entry,
    symlink_entry,
    tree_digest,
)
from agent.manifest import Identity, Manifest, Placed, doubtful, settle_doubts
from agent.scan import Found, Scan, hash_files, scan
from agent.wire.messages import Entry


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task looks at. `reserved` are rendered files and other targets inside this one."""

    ignore: Ignore
    reserved: frozenset[str]
    delete_foreign: bool
    keep_edits: bool
    ignore_permissions: bool

    @property
    def above_reserved(self) -> frozenset[str]:
        return frozenset(above for path in self.reserved for above in ancestors(path))


@dataclass(slots=True)
class View:
    """A target as it was found. `contents` caches what was read, so that nothing is read twice."""

    found: dict[str, Found] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    entered: frozenset[str] | None = frozenset()
    """Directories that were looked into where they exist; None: all."""
    ours: dict[str, Placed] = field(default_factory=dict)
    contents: dict[str, bytes | None] = field(default_factory=dict)
    known: bool = False
    """Whether there is a manifest, so that there is something to compare."""
    read_at: int = 0
    """When reading began, in nanoseconds since the epoch."""

    def blocks_of(self, path: str) -> bytes | None:
        """The digests of a found file's blocks; None where they are not known."""
        found = self.found[path]
        placed = self.ours.get(path)
        if placed is not None and placed.stamp is not None and placed.stamp.fits(found):
            return placed.entry.blocks
        return self.contents.get(path)

    def entry_of(self, path: str) -> Entry | None:
        """What stands at `path`, as an index would have it; None for nothing, a FIFO or the like, or a
        file that could not be read without changing."""
        found = self.found.get(path)
        if found is None:
            return None
        if found.kind == "directory":
            return directory_entry(path, mode=found.mode, mtime_ns=found.mtime_ns)
        if found.kind == "symlink":
            return symlink_entry(path, mtime_ns=found.mtime_ns, link=found.link)
        blocks = self.blocks_of(path) if found.kind == "file" else None
        if blocks is None:
            return None
        return file_entry(path, mode=found.mode, size=found.size, mtime_ns=found.mtime_ns, blocks=blocks)

    def edited(self, placed: Placed) -> bool:
        """Whether something else stands where we placed `placed`; nothing there is no edit."""
        found = self.found.get(placed.entry.path)
        if found is None:
            return False
        if found.kind != placed.entry.kind:
            return True
        if found.kind == "file":
            return found.size != placed.entry.size or self.blocks_of(placed.entry.path) != placed.entry.blocks
        return found.link != placed.entry.link

    def seen(self) -> dict[str, Seen]:
        """All that was found, as `changes.diff` wants it."""
        seen: dict[str, Seen] = {}
        for path, found in self.found.items():
            placed = self.ours.get(path)
            seen[path] = Seen(
                found.kind,
                found.mode & PERMISSIONS,
                found.size,
                found.mtime_ns,
                self.blocks_of(path) if found.kind == "file" else None,
                found.link,
                placed is not None,
                placed is not None and self.edited(placed),
            )
        return seen

    def local_edits(self) -> int:
        return sum(1 for placed in self.ours.values() if self.edited(placed))

    def protected(self, scope: Scope) -> frozenset[str]:
        """Directories that hold something ignored or reserved: they can't go, so they don't count."""
        return scope.above_reserved.union(above for path in self.ignored for above in ancestors(path))

    def foreign(self, scope: Scope) -> int:
        """Entries that are not ours, apart from the directories that hold ignored or reserved paths."""
        protected = self.protected(scope)
        return sum(1 for path in self.found if path not in self.ours and path not in protected)


async def look(root_fd: int, identity: Identity, manifest: Manifest | None, scope: Scope) -> View:
    """Scans a target and reads what must be read to know what is ours and whether it is as placed."""
    view = View(read_at=time.time_ns())
    doubts: set[str] = set()
    listed: list[Entry] = []
    if manifest is not None:
        view.known = True
        doubts = doubtful(manifest, identity)
        listed = [placed.entry for placed in manifest.placed] + list(manifest.pending)
    folders = frozenset(entry.path for entry in listed if entry.kind == "directory")
    # What was about to be placed may lie in a directory that was there before and is not listed yet.
    above_doubts = {above for path in doubts for above in ancestors(path)}
    await _scan_into(view, root_fd, scope, folders | doubts | above_doubts)
    if manifest is not None:
        # Believed for the moment: a stamp that fits says what a doubtful file holds, all others are read.
        view.ours = {
            placed.entry.path: placed
            for placed in manifest.placed
            if not scope.ignore.covers(placed.entry.path, placed.entry.kind == "directory")
            and placed.entry.path not in scope.reserved
        }
        await read_contents(view, root_fd, doubts)
        on_disk = {path: now for path in doubts if (now := view.entry_of(path)) is not None}
        settled = settle_doubts(manifest, identity, on_disk)
        view.ours = {
            path: placed
            for path, placed in settled.items()
            if path not in scope.reserved and not scope.ignore.covers(path, placed.entry.kind == "directory")
        }
    await read_contents(view, root_fd, view.found if scope.delete_foreign else view.ours)
    return view


async def look_for(view: View, root_fd: int, index: Mapping[str, Entry], scope: Scope) -> None:
    """Looks at what else an index concerns: directories not entered so far, files not yet read."""
    if view.entered is not None:
        unentered = [
            path
            for path in index
            if path not in view.entered and (found := view.found.get(path)) and found.kind == "directory"
        ]
        if unentered:
            await _scan_into(view, root_fd, scope, view.entered | frozenset(index))
            await read_contents(view, root_fd, view.ours)
    await read_contents(view, root_fd, (path for path in index if path in view.found))


async def _scan_into(view: View, root_fd: int, scope: Scope, folders: Collection[str]) -> None:
    only = None if scope.delete_foreign else frozenset(folders) | scope.above_reserved

    def walk() -> Scan:
        return scan(root_fd, scope.ignore, only=only, reserved=scope.reserved)

    result = await trio.to_thread.run_sync(walk)
    changed = [path for path in view.contents if result.found.get(path) != view.found.get(path)]
    for path in changed:
        del view.contents[path]
    view.found, view.ignored, view.entered = result.found, result.ignored, only


async def read_contents(view: View, root_fd: int, paths: Iterable[str]) -> None:
    """Reads the files among `paths` that were found and whose content is not known yet."""
    unread: list[tuple[str, Found]] = []
    for path in sorted(paths):
        found = view.found.get(path)
        if found is None or found.kind != "file" or path in view.contents:
            continue
        placed = view.ours.get(path)
        if placed is None or placed.stamp is None or not placed.stamp.fits(found):
            unread.append((path, found))
    if unread:
        view.contents.update(await hash_files(root_fd, unread))


def observed_entries(view: View, scope: Scope) -> list[Entry]:
    """What a task compares with the tree: ours as it is now; with `delete_foreign` all that is there.

    Where local edits are kept by policy, an edited entry counts as what the tree wanted there: it is
    as it should be.
    """
    entries: list[Entry] = []
    for path, placed in view.ours.items():
        if path not in view.found:
            continue
        if scope.keep_edits and view.edited(placed):
            entries.append(placed.entry)
        else:
            entries.append(_as_now(view, path))
    if scope.delete_foreign:
        protected = view.protected(scope)
        entries += [
            _as_now(view, path) for path in view.found if path not in view.ours and path not in protected
        ]
    return entries


def _as_now(view: View, path: str) -> Entry:
    entry = view.entry_of(path)
    # What no index can hold must not compare equal to one that leaves it out.
    return entry if entry is not None else Entry(path=path, kind="file", size=-1)


def observed_digest(view: View, scope: Scope) -> bytes:
    """The tree digest of `observed_entries`; empty where nothing of ours could be there."""
    if not view.known and not scope.delete_foreign:
        return b""
    return tree_digest(observed_entries(view, scope), ignore_permissions=scope.ignore_permissions)
