"""What a task has to do with that brings another tree to a target in which all is as it was recorded.

The glance has shown that nothing differs from the record. So what differs from the tree is what the record
and the index differ in, and that alone is looked at, compared, written and recorded anew: what both have the
same costs nothing more, be it one file or most of a tree. Whatever does not go by this is left to a close
look.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agent.features import times_count
from agent.folders import Folders
from agent.glance import Rows, times_in
from agent.index import PERMISSIONS, ancestors, same_content, tree_digest
from agent.look import View
from agent.manifest import Placed
from agent.recall import Recalled
from agent.record import are_of
from agent.scan import Found, look_at
from agent.wire.messages import Entry, Task


@dataclass(frozen=True, slots=True)
class Concern:
    """`index` are the entries that differ and the directories above what differs, `view` is what there is of
    these and of what goes; `ordinals`, by path, are their places in the `whole` index."""

    view: View
    index: Sequence[Entry]
    ordinals: Mapping[str, int]
    whole: Sequence[Entry]

    def established(
        self, recorded: Sequence[Placed], index: Sequence[Entry], tree: bytes, ignore_permissions: bool
    ) -> tuple[Sequence[Placed], bytes]:
        """As `agent.record.established`, of all that stands, once what the task is about was `recorded`;
        `index` are the entries of that, as they were planned."""
        renewed = {placed.entry.path: placed for placed in recorded}
        before = {placed.entry.path: placed for placed in self.view.besides}
        concerned = self.ordinals
        stands = (
            renewed.get(entry.path) if entry.path in concerned else before[entry.path] for entry in self.whole
        )
        placed = [each for each in stands if each is not None]
        if are_of(recorded, index):
            return placed, tree
        return placed, tree_digest((item.entry for item in placed), ignore_permissions=ignore_permissions)


def concerned(
    root_fd: int, recalled: Recalled, before: Sequence[Placed], whole: Sequence[Entry], task: Task
) -> Concern | None:
    """What the task is about; blocks. `before` is what is recorded, `whole` the index, both in path order.

    None where a close look has to tell: something is no more as it was recorded, something stands already
    where something new is to be, a directory goes and not all that lies there goes with it, or all is to go.
    """
    if not whole:
        return None
    read_at, last = time.time_ns(), recalled.last
    modes, times = not task.ignore_permissions, times_count(task)
    says_the_same = partial(_says_the_same, times=times, modes=modes)
    late = _late(recalled.rows, whole) if times else ()
    gone = {placed.entry.path: placed for placed in before}
    index: dict[str, tuple[int, Entry]] = {}
    folders: dict[str, tuple[int, Entry]] = {}
    ours: dict[str, Placed] = {}
    for ordinal, entry in enumerate(whole):
        path = entry.path
        placed = gone.pop(path, None)
        if entry.kind == "directory":
            folders[path] = ordinal, entry
        if placed is None:
            index[path] = ordinal, entry
        elif path in late or (placed.entry is not entry and not says_the_same(placed.entry, entry)):
            index[path] = ordinal, entry
            ours[path] = placed
    folder_goes = any(
        placed.entry.kind == "directory" and (path in gone or index[path][1].kind != "directory")
        for path, placed in (*gone.items(), *ours.items())
    )
    if folder_goes and (last.glance.extras or last.foreign or task.strategy == "overlay"):
        return None
    ours.update(gone)
    above = {each for path in (*index, *gone) for each in ancestors(path)} & folders.keys() - index.keys()
    if above:
        index.update((path, folders[path]) for path in above)
        ours.update((placed.entry.path, placed) for placed in before if placed.entry.path in above)
    found = _look(root_fd, index.keys() | gone.keys(), ours, modes=modes)
    if found is None:
        return None
    blocks: dict[str, bytes | None] = {
        path: placed.entry.blocks for path, placed in ours.items() if placed.entry.kind == "file"
    }
    view = View(
        found=found,
        entered=None,
        ours=ours,
        blocks=blocks,
        known=True,
        files_glanced=last.files - len(blocks),
        untouched=True,
        read_at=read_at,
        besides=before,
    )
    in_order = sorted(index.values())
    return Concern(view, [entry for _, entry in in_order], {entry.path: at for at, entry in in_order}, whole)


def _says_the_same(one: Entry, other: Entry, *, times: bool, modes: bool) -> bool:
    return (
        same_content(one, other)
        and (not times or one.mtime_ns == other.mtime_ns)
        and (not modes or one.mode == other.mode)
    )


def _late(rows: Rows, whole: Iterable[Entry]) -> set[str]:
    """Directories and symlinks that have another time on the disk than in the index. No look minds that, so
    that what is recorded of it proves nothing."""
    inside: dict[str, dict[str, int]] = {}
    for entry in whole:
        if entry.kind != "file":
            above, _, name = entry.path.rpartition("/")
            inside.setdefault(above, {})[name] = entry.mtime_ns
    late: set[str] = set()
    for folder, wanted in inside.items():
        there = times_in(rows, folder)
        names = (name for name, mtime_ns in wanted.items() if there.get(name) != mtime_ns)
        late.update(f"{folder}/{name}" if folder else name for name in names)
    return late


def _look(
    root_fd: int, paths: Iterable[str], ours: dict[str, Placed], *, modes: bool
) -> dict[str, Found] | None:
    """What is at `paths`, if that is what is recorded, and nothing where nothing is."""
    found: dict[str, Found] = {}
    with Folders(root_fd) as folders:
        for path in sorted(paths):
            there, placed = look_at(folders, path), ours.get(path)
            if placed is None and there is None:
                continue
            if placed is None or there is None or not _is_as_recorded(there, placed, modes=modes):
                return None
            found[path] = there
    return found


def _is_as_recorded(there: Found, placed: Placed, *, modes: bool) -> bool:
    entry = placed.entry
    if placed.kept or there.kind != entry.kind:
        return False
    if entry.kind == "file" and (placed.stamp is None or not placed.stamp.fits(there)):
        return False
    if entry.kind == "symlink":
        return there.link == entry.link
    return not modes or there.mode & PERMISSIONS == entry.mode & PERMISSIONS
