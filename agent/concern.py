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

import trio

from agent.differences import Differences, KnownLedger
from agent.fetch import fetch_differences
from agent.folders import Folders
from agent.glance import names_in
from agent.index import PERMISSIONS, ancestors
from agent.ledger import Ledger
from agent.look import Scope, View
from agent.manifest import Placed
from agent.recall import Recalled
from agent.record import are_of
from agent.rules import AgentRules
from agent.scan import Found, look_at
from agent.wire.channel import Channel
from agent.wire.messages import Entry, Task


@dataclass(frozen=True, slots=True)
class Concern:
    """`index` are the entries that differ and the directories above what differs, `view` is what there is of
    these and of what goes; `ordinals`, by path, are their places in the `whole` index."""

    view: View
    index: Sequence[Entry]
    ordinals: Mapping[str, int]
    whole: Ledger

    def established(
        self, recorded: Sequence[Placed], index: Sequence[Entry], tree: bytes
    ) -> tuple[Ledger, bytes]:
        """As `agent.record.established`, of all that stands, once what the task is about was `recorded`;
        `index` are the entries of that, as they were planned."""
        changes: dict[str, Placed | None] = dict.fromkeys(self.ordinals)
        changes.update((placed.entry.path, placed) for placed in recorded)
        placed = self.whole.spliced(changes)
        return placed, tree if are_of(recorded, index) else placed.tree()


async def fetch_concern(
    channel: Channel,
    task: Task,
    rules: AgentRules,
    scope: Scope,
    root_fd: int,
    recalled: Recalled,
    before: Ledger,
) -> tuple[Concern | None, Ledger, int]:
    """Asks for what the index differs in from what is recorded: what the task is about (see `concerned`), the
    whole index, and the time of the tree's own directory. Raises as `agent.fetch.fetch_index` does."""
    recorded = KnownLedger(before, partial(names_in, recalled.rows))
    given = channel, task, rules, scope.ignore
    found, mtime_ns = await fetch_differences(*given, reserved=scope.forbidden, recorded=recorded)
    concern = await trio.to_thread.run_sync(concerned, root_fd, recalled, before, found, task)
    return concern, found.whole, mtime_ns


def concerned(
    root_fd: int, recalled: Recalled, before: Ledger, found: Differences, task: Task
) -> Concern | None:
    """What the task is about; blocks. `before` is what is recorded, `found` what the index has else.

    None where a close look has to tell: something is no more as it was recorded, something stands already
    where something new is to be, a directory goes and not all that lies there goes with it, or all is to go.
    """
    whole = found.whole
    assert task.ignore_permissions is not whole.modes
    if not len(whole):
        return None
    read_at, last = time.time_ns(), recalled.last
    if _folder_goes(found) and (last.glance.extras or last.foreign or task.strategy == "overlay"):
        return None
    index, ours = dict(found.entries), dict(found.recorded)
    # To put a link's time right makes it anew, so that its directory has another one then.
    above = {each for path in (*index, *found.goes, *before.late) for each in ancestors(path)}
    for path in (above | before.late) - index.keys():
        # What is not of the index goes with what is above it, and what was recorded of it has been taken.
        placed, so_far = whole.at(path), before.at(path)
        if placed is not None and so_far is not None:
            index[path], ours[path] = placed.entry, so_far
    there = _look(root_fd, index.keys() | found.goes, ours, modes=not task.ignore_permissions)
    if there is None:
        return None
    blocks: dict[str, bytes | None] = {
        path: placed.entry.blocks for path, placed in ours.items() if placed.entry.kind == "file"
    }
    view = View(
        found=there,
        entered=None,
        ours=ours,
        blocks=blocks,
        known=True,
        files_glanced=last.files - len(blocks),
        untouched=True,
        read_at=read_at,
        besides=before,
    )
    in_order = sorted(index)
    ordinals = {path: whole.ordinal(path) for path in in_order}
    return Concern(view, [index[path] for path in in_order], ordinals, whole)


def _folder_goes(found: Differences) -> bool:
    return any(
        placed.entry.kind == "directory" and (path in found.goes or found.entries[path].kind != "directory")
        for path, placed in found.recorded.items()
    )


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
