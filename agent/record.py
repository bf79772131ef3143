"""What goes into the manifest once a task has placed its entries: each with a stamp to know it by."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from agent.changes import Changes
from agent.failures import TaskFailed
from agent.folders import Folders
from agent.index import PERMISSIONS, tree_digest
from agent.look import View
from agent.manifest import Placed, Stamp
from agent.owners import Owners
from agent.ownership import NOBODY, Names
from agent.scan import CLOCK_GRAIN_NS, Found, look_at, settled
from agent.wire.messages import Entry
from agent.writer import Writer

_MOVED_ON = 1.25
"""Grains after which `settled` finds so; above one, as the clock that sleeps are measured by is another."""


async def wait_for_clock() -> None:
    """Lets the file system's clock move on, so that a change from now on shows in what a task has changed."""
    await trio.sleep(_MOVED_ON * CLOCK_GRAIN_NS / 1_000_000_000)


def stamp_of(found: Found) -> Stamp:
    return Stamp(found.dev, found.ino, found.size, found.mtime_ns, found.ctime_ns)


@dataclass(slots=True)
class Recorded:
    """What goes into the manifest, and what was looked at for it."""

    at: int
    """When that began, in nanoseconds since the epoch."""
    placed: list[Placed] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)
    """All directories, and what was written."""
    as_written: bool = True
    """Whether all of it was there and as the task had left it."""
    disowned: dict[str, bool] = field(default_factory=dict)
    """What could not be given to its owner, as somebody changed it meanwhile; see `changes.diff`."""


def record(
    root_fd: int,
    index: Sequence[Entry],
    view: View,
    writer: Writer,
    kept: Collection[str],
    names: Mapping[str, Names] = NOBODY,
    owners: Owners | None = None,
) -> Recorded:
    """One `Placed` for each entry of the index that stands in the target now; blocks.

    What was written is looked at once more: a file that somebody changed since gets no stamp, so that
    the next look reads it, and one that is gone is left out. What was left alone and holds something
    else is a local edit that was kept. Modes are those on the disk. `names`: whose the entries are to be,
    where `owners` count.
    """
    recorded = Recorded(time.time_ns())
    placed = recorded.placed
    with Folders(root_fd) as folders:
        for entry in index:
            path = entry.path
            if path in kept:
                placed.append(Placed(entry, None, True))
            elif entry.kind == "directory" or path in writer.landed:
                found = look_at(folders, path)
                if found is None or found.kind != entry.kind:
                    recorded.as_written = False
                    continue
                recorded.found[path] = found
                stamp = None
                if entry.kind != "directory":
                    landed = writer.landed[path]
                    same = found.ino == landed.ino and found.mtime_ns == landed.mtime_ns
                    same = same and found.link == entry.link
                    same = same and (entry.kind != "file" or found.size == entry.size)
                    if not same:
                        recorded.as_written = False
                    elif entry.kind == "file" and settled(found, recorded.at):
                        stamp = stamp_of(found)
                placed.append(Placed(_with_mode(entry, found), stamp))
            else:
                placed.append(_unchanged(entry, path, view))
    if names and owners is not None:
        differing = owners.differing({**view.found, **recorded.found}, names)
        edits = {item.entry.path for item in placed if item.kept}
        recorded.disowned = {path: several for path, several in differing.items() if path not in edits}
    return recorded


def look_where_gone(root_fd: int, changes: Changes) -> dict[str, Found | None]:
    """What is there now where something was taken away; blocks."""
    with Folders(root_fd) as folders:
        return {path: look_at(folders, path) for path in changes.removed()}


def _unchanged(entry: Entry, path: str, view: View) -> Placed:
    if view.is_as_placed(entry) and view.found[path].mode & PERMISSIONS == entry.mode:
        return view.ours[path]
    if not view.holds(entry):
        return Placed(entry, None, True)
    found = view.found[path]
    if entry.kind != "file":
        return Placed(_with_mode(entry, found))
    before = view.ours.get(path)
    if before is not None and before.stamp is not None and before.stamp.fits(found):
        stamp: Stamp | None = before.stamp
    else:
        stamp = stamp_of(found) if settled(found, view.read_at) else None
    return Placed(_with_mode(entry, found), stamp)


def _with_mode(entry: Entry, found: Found) -> Entry:
    if entry.kind == "symlink" or found.mode & PERMISSIONS == entry.mode:
        return entry
    return msgspec.structs.replace(entry, mode=found.mode & PERMISSIONS)


def established(
    placed: Sequence[Placed], index: Sequence[Entry], tree: bytes, ignore_permissions: bool
) -> tuple[Collection[Placed], bytes]:
    """What is placed and the tree digest of that; the one of `index` is `tree`."""
    if are_of(placed, index):
        return placed, tree
    return placed, tree_digest((item.entry for item in placed), ignore_permissions=ignore_permissions)


def not_as_written(target: str) -> TaskFailed:
    """What to say of a target that does not have the digest of what was placed there."""
    return TaskFailed(
        "VerificationFailed",
        f"{target!r} does not hold what was written: somebody changed it meanwhile, "
        "or the file system does not keep modes",
        hint="it is tried again; set ignore_permissions if the file system has no modes",
    )


def are_of(placed: Sequence[Placed], index: Sequence[Entry]) -> bool:
    """Whether all of the index is placed, just as it says."""
    return len(placed) == len(index) and all(
        item.entry is entry for item, entry in zip(placed, index, strict=True)
    )
