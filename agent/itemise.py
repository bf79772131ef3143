"""What a sync would do, path by path and in bytes, told by a task that only observes. Nothing is changed."""

import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import trio

from agent.blocks import block_count, block_digest, block_length
from agent.changes import Changes, Write
from agent.commands import check_commands
from agent.failures import TaskFailed, line_of
from agent.features import times_count
from agent.fetch import fetch_index
from agent.filenames import escaped
from agent.index import PERMISSIONS, parent_of
from agent.kept import WHOLE, Version
from agent.look import Scope, View
from agent.planning import Planned, plan
from agent.reuse import Shelf, Sources, find_sources
from agent.room import check_room
from agent.rules import AgentRules
from agent.target import check_target, open_target
from agent.wire.channel import Channel
from agent.wire.forecast import (
    BACKUP,
    BATCH_BYTES,
    CREATE,
    DELETE,
    KEEP,
    MAX_ITEMS,
    MAX_TEXT,
    MODE,
    OWNER,
    RENDER,
    REPLACE,
    STAY,
    TIME,
    UPDATE,
    Forecast,
    Guard,
    Item,
    Sums,
)
from agent.wire.messages import ITEMISE, NO_TIMES, Entry, RenderedContent, Task


@dataclass(frozen=True, slots=True)
class Found:
    """What a task found at its target; where all is `equal`, it needs no index.

    Another version than that it looked at is begun from what is as it was placed: nothing else there counts,
    and the commands follow in any case.
    """

    task: Task
    view: View
    scope: Scope
    differing: Sequence[RenderedContent]
    foreign: int
    after_done: bool
    equal: bool
    version: Version = WHOLE


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that a task found out before it would begin to act."""

    task: Task
    view: View
    planned: Planned
    differing: Sequence[RenderedContent]
    after_done: bool
    version: Version


async def itemise(found: Found, channel: Channel, rules: AgentRules, root_fd: int | None) -> None:
    """Says in bounded batches what would be done, and which guards would stop it.

    Raises what taking an index raises.
    """
    task, view, scope, version = found.task, found.view, found.scope, found.version
    if version.anew and task.on_local_edit == "backup":
        task = msgspec.structs.replace(task, on_local_edit="overwrite")  # they stay where they are
    planned = Planned(Changes(), found.foreign)
    if version.anew or not found.equal:
        use = (ITEMISE,) if times_count(task) else (ITEMISE, NO_TIMES)
        index = await fetch_index(channel, task, rules, scope.ignore, reserved=scope.forbidden, features=use)
        names = await trio.to_thread.run_sync(index.names)
        of = task, index.entries, view, scope, root_fd
        planned = await plan(*of, only_look=True, names=names, anew=version.anew)
    elif scope.keep_edits and view.edited:
        # Of an equal target these alone hold something else than the tree, and that is as it should be.
        kept = Changes(kept=frozenset(view.edited), local_edits=len(view.edited))
        planned = Planned(kept, found.foreign)
    after_done = found.after_done if version.after_done is None else version.after_done
    outlook = Outlook(task, view, planned, found.differing, after_done, version)

    def work() -> list[Forecast]:
        return list(_batches(task.id, *_forecast(outlook, _guards(outlook, rules, root_fd))))

    for batch in await trio.to_thread.run_sync(work):
        await channel.send(batch)


def _guards(outlook: Outlook, rules: AgentRules, root_fd: int | None) -> list[Guard]:
    task = outlook.task
    found = [] if outlook.planned.stopped is None else [outlook.planned.stopped]
    try:
        check_commands(task.after, rules.commands)
    except TaskFailed as error:
        found.append(error)
    try:
        _check_room(outlook, rules, root_fd)
    except TaskFailed as error:
        found.append(error)
    return [Guard(reason=error.code, message=line_of(error)[:2000]) for error in found]


def _check_room(outlook: Outlook, rules: AgentRules, root_fd: int | None) -> None:
    path, writes = outlook.task.target_path, outlook.planned.changes.writes
    if root_fd is not None:
        shelves = [Shelf(root_fd, outlook.view.contents()), *outlook.version.shelves]
        copied = _copied(outlook.view) if outlook.version.anew else 0
        check_room(root_fd, writes, shelves, copied=copied, sweep=False)
        return
    for _ in check_target(path, rules.roots)[1]:
        path = posixpath.dirname(path)
        above = open_target(path, rules.roots, create=False)
        if above is not None:
            try:
                check_room(above.fd, writes, sweep=False)
            finally:
                above.close()
            return


def _copied(view: View) -> int:
    """Bytes of the files with which another version begins."""
    return sum(size for _, size, _ in view.contents())


def _forecast(outlook: Outlook, guards: Sequence[Guard]) -> tuple[list[Item], Sums]:
    changes, view = outlook.planned.changes, outlook.view
    # The target's own descriptor is not needed to know what it holds.
    sources = find_sources(changes.writes, [Shelf(-1, view.contents()), *outlook.version.shelves])
    # These are away before a block of theirs could be read.
    gone_first = {*changes.save_first, *changes.remove_first}
    saved = frozenset(changes.save_first)
    items = [
        *(_placed(entry, view, saved=entry.path in saved) for entry in changes.folders),
        *(_written(write, view, sources, gone_first) for write in changes.writes),
        *(_linked(write, view, outlook.planned.disowned) for write in changes.links),
        *(_touched(entry, view, outlook.planned.disowned) for entry in changes.touch),
        *(Item(KEEP, path, view.found[path].kind) for path in changes.kept),
        *(Item(BACKUP, path, view.found[path].kind) for path in changes.save_last),
        *(Item(RENDER, file.path, size=len(file.content)) for file in outlook.differing),
    ]
    placed = {item.path for item in items}
    going = {*changes.remove_first, *changes.delete}
    staying = _staying(going, view, changes.save_last)
    items += [
        Item(STAY if path in staying else DELETE, path, view.found[path].kind) for path in going - placed
    ]
    items.sort(key=lambda item: (item.path, item.deed))
    counts: dict[str, int] = {}
    for item in items:
        counts[item.deed] = counts.get(item.deed, 0) + 1
    listed = _that_fit(items)
    sums = Sums(
        counts=counts,
        unlisted=len(items) - len(listed),
        files_written=len(changes.writes) + len(changes.links) + len(outlook.differing),
        files_deleted=len(going) - len(staying),
        bytes_requested=sum(item.requested for item in items),
        bytes_reused=sum(item.reused for item in items),
        foreign=outlook.planned.foreign,
        foreign_deleted=sum(1 for path in going - placed - staying if path not in view.ours),
        ignored=len(view.ignored),
        local_edits=changes.local_edits,
        guards=tuple(guards),
        after=outlook.task.after if changes or outlook.differing or not outlook.after_done else (),
    )
    return listed, sums


def _placed(entry: Entry, view: View, *, saved: bool) -> Item:
    there = view.found.get(entry.path)
    deed = CREATE if there is None else UPDATE if there.kind == entry.kind else REPLACE
    return Item(deed, entry.path, entry.kind, entry.size, saved=saved)


def _written(write: Write, view: View, sources: Sources, gone: Collection[str]) -> Item:
    requested = reused = 0
    entry = write.entry
    for number in range(block_count(entry.size)):
        source = sources.blocks.get(block_digest(entry.blocks, number))
        length = block_length(entry.size, number)
        if source is None or (source.shelf == 0 and source.path in gone):
            requested += length
        else:
            reused += length
    there = view.found.get(entry.path)
    deed = CREATE if there is None else UPDATE if there.kind == "file" else REPLACE
    return Item(deed, entry.path, "file", entry.size, requested, reused, write.backup)


def _linked(write: Write, view: View, disowned: Collection[str]) -> Item:
    if view.holds(write.entry):
        return _touched(write.entry, view, disowned)
    return _placed(write.entry, view, saved=write.backup)


def _touched(entry: Entry, view: View, disowned: Collection[str]) -> Item:
    there = view.found[entry.path]
    differs = {
        OWNER: entry.path in disowned,
        MODE: entry.kind != "symlink" and there.mode & PERMISSIONS != entry.mode & PERMISSIONS,
        TIME: entry.kind != "directory" and there.mtime_ns != entry.mtime_ns,
    }
    return Item("+".join(name for name in differs if differs[name]), entry.path, entry.kind, entry.size)


def _staying(going: Collection[str], view: View, saved: Iterable[str]) -> set[str]:
    """Directories among `going` that something keeps: what is not going, ignored, or never looked into."""
    held = {parent_of(path) for path in view.ignored}
    # The backup of a local edit lies where that was.
    held.update(parent_of(path) for path in view.found if path not in going)
    held.update(parent_of(path) for path in saved)
    staying: set[str] = set()
    for path in sorted(going, reverse=True):  # deepest first
        unseen = view.entered is not None and path not in view.entered
        if view.found[path].kind == "directory" and (path in held or unseen):
            staying.add(path)
            held.add(parent_of(path))
    return staying


def _that_fit(items: Sequence[Item]) -> list[Item]:
    listed: list[Item] = []
    room = MAX_TEXT
    for item in items[:MAX_ITEMS]:
        path = escaped(item.path)  # or it could not be sent
        room -= len(path.encode())
        if room < 0:
            break
        listed.append(item if path == item.path else msgspec.structs.replace(item, path=path))
    return listed


def _batches(task: str, items: Iterable[Item], sums: Sums) -> Iterator[Forecast]:
    batch: list[Item] = []
    room = BATCH_BYTES
    for item in items:
        batch.append(item)
        room -= 4 * len(item.path) + 64
        if room <= 0:
            yield Forecast(task=task, items=tuple(batch))
            batch, room = [], BATCH_BYTES
    yield Forecast(task=task, items=tuple(batch), sums=sums)
