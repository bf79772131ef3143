"""What goes into the manifest once a task has placed its entries: each with a stamp to know it by."""

import time
from collections.abc import Collection, Iterable, Sequence

import msgspec
import trio

from agent.folders import Folders
from agent.index import PERMISSIONS, tree_digest
from agent.look import View
from agent.manifest import Placed, Stamp
from agent.scan import CLOCK_GRAIN_NS, Found, look_at, settled
from agent.wire.messages import Entry
from agent.writer import Writer


async def wait_for_clock(writer: Writer) -> None:
    """Lets the file system's clock move on, so that a change from now on shows in what was written."""
    if writer.landed:
        await trio.sleep(2 * CLOCK_GRAIN_NS / 1_000_000_000)


def stamp_of(found: Found) -> Stamp:
    return Stamp(found.dev, found.ino, found.size, found.mtime_ns, found.ctime_ns)


def record(
    root_fd: int, index: Sequence[Entry], view: View, writer: Writer, kept: Collection[str]
) -> list[Placed]:
    """One `Placed` for each entry of the index that stands in the target now; blocks.

    What was written is looked at once more: a file that somebody changed since gets no stamp, so that
    the next look reads it, and one that is gone is left out. What was left alone and holds something
    else is a local edit that was kept. Modes are those on the disk.
    """
    now = time.time_ns()
    placed: list[Placed] = []
    with Folders(root_fd) as folders:
        for entry in index:
            path = entry.path
            if path in kept:
                placed.append(Placed(entry, None, True))
            elif entry.kind == "directory":
                folder = look_at(folders, path)
                if folder is not None and folder.kind == "directory":
                    placed.append(Placed(_with_mode(entry, folder)))
            elif path in writer.landed:
                found = look_at(folders, path)
                if found is None or found.kind != entry.kind:
                    continue
                landed = writer.landed[path]
                same = found.ino == landed.ino and found.mtime_ns == landed.mtime_ns
                same = same and found.size == entry.size and settled(found, now)
                stamp = stamp_of(found) if same and entry.kind == "file" else None
                placed.append(Placed(_with_mode(entry, found), stamp))
            else:
                placed.append(_unchanged(entry, path, view))
    return placed


def _unchanged(entry: Entry, path: str, view: View) -> Placed:
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


def established_digest(placed: Iterable[Placed], ignore_permissions: bool) -> bytes:
    """The tree digest of what is placed."""
    return tree_digest((item.entry for item in placed), ignore_permissions=ignore_permissions)
