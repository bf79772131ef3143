"""What every agent that asks for a tree is told first: its index, or what of it the agent does not have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from agent.errors import RemoteProtocolError
from agent.index import digest_of_rows, split_batches, tree_rows
from agent.ownership import owner_batches
from agent.runs import Runs, check_known, compare_runs, runs_of, with_others
from agent.wire.channel import Channel
from agent.wire.messages import (
    NO_TIMES,
    OWNERS,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    KnownRuns,
    SyncStart,
    Task,
)

if TYPE_CHECKING:
    from reconciler.sync.serving import TreeSource

_KINDS = 2
"""Kinds of runs that are kept: agents that are near each other have one, or two where it changes."""


_ROWS = 64
"""Entries whose rows for the tree digest are kept together."""


class TreeRuns:
    """The index of one tree in the pieces in which it is told, made once for all agents."""

    def __init__(self) -> None:
        self._all: dict[bool, tuple[tuple[Entry, ...], ...]] = {}
        self._made: dict[tuple[int, bool, bool], Runs] = {}
        self._rows: dict[bool, list[bytes]] = {}
        """What the tree digest covers of each `_ROWS` entries, with permissions or without."""
        self._dated: tuple[Entry, ...] | None = None
        self._lock = trio.Lock()

    def with_others(
        self, before: Sequence[Entry], entries: Sequence[Entry], places: Sequence[int]
    ) -> "TreeRuns":
        """Of a tree of `entries`, which are others than those `before` at these places alone, and have the
        same paths: only what these are in is made anew. Pure."""
        renewed = TreeRuns()
        renewed._rows = dict(self._rows)
        for modes, rows in self._rows.items():
            renewed._rows[modes] = [*rows]
            for number in {place // _ROWS for place in places}:
                renewed._rows[modes][number] = _rows_at(entries, number, modes=modes)
        for kind, runs in tuple(self._made.items()):
            if runs.entries is before:
                _, modes, _ = kind
                renewed._made[kind] = with_others(runs, entries, places, modes=modes)
        return renewed

    def tree(self, entries: Sequence[Entry], *, ignore_permissions: bool) -> bytes:
        """The tree digest of all entries, which are in path order; blocks. What it covers is kept."""
        modes = not ignore_permissions
        if modes not in self._rows:
            count = -(-len(entries) // _ROWS)
            self._rows[modes] = [_rows_at(entries, number, modes=modes) for number in range(count)]
        return digest_of_rows(len(entries), self._rows[modes])

    async def all(self, entries: Sequence[Entry], *, dated: bool) -> tuple[tuple[Entry, ...], ...]:
        """Batches of the whole index, for an agent that has none of it."""
        async with self._lock:
            if dated not in self._all:
                self._all[dated] = tuple(await trio.to_thread.run_sync(split_batches, entries))
            return self._all[dated]

    async def dated(self, entries: Sequence[Entry], mtime_ns: int) -> tuple[Entry, ...]:
        """For agents that take times for what they say: all are when the tree was put there."""
        async with self._lock:
            if self._dated is None:
                self._dated = await trio.to_thread.run_sync(_dated, entries, mtime_ns)
            return self._dated

    async def of(self, entries: Sequence[Entry], known: KnownRuns, *, dated: bool) -> Runs:
        async with self._lock:
            kind = (known.length, known.modes, dated)
            made = self._made.get(kind)
            if made is None:
                if len(self._made) == _KINDS:
                    self._made.clear()
                made = self._made[kind] = await trio.to_thread.run_sync(
                    lambda: runs_of(entries, known.length, modes=known.modes)
                )
            return made


async def send_index(channel: Channel, source: "TreeSource", start: SyncStart) -> None:
    """Answers an agent that has asked for the index. Raises RemoteProtocolError for runs that are none."""
    entries, mtime_ns = source.entries, source.mtime_ns
    timeless = not source.times and NO_TIMES in start.features
    if timeless:
        mtime_ns = 0
    elif not source.times:
        entries = await source.runs.dated(entries, mtime_ns)
    if start.known is None:
        same, batches = b"", await source.runs.all(entries, dated=not timeless)
    else:
        check_known(start.known)
        runs = await source.runs.of(entries, start.known, dated=not timeless)
        same, batches = await trio.to_thread.run_sync(_rest, start.known, runs)
    await channel.send(
        IndexBegin(
            task=start.task,
            entries=len(source.entries),
            bytes=source.bytes,
            mtime_ns=mtime_ns,
            same=same,
        )
    )
    for batch in batches:
        await channel.send(IndexFile(task=start.task, entries=batch))
    if OWNERS in start.features:
        for owners in owner_batches(start.task, source.owned):
            await channel.send(owners)
    await channel.send(IndexEnd(task=start.task, tree=source.tree))


def _rest(known: KnownRuns, runs: Runs) -> tuple[bytes, tuple[tuple[Entry, ...], ...]]:
    same, rest = compare_runs(known, runs)
    return same, tuple(split_batches(rest))


def _rows_at(entries: Sequence[Entry], number: int, *, modes: bool) -> bytes:
    return tree_rows(entries[number * _ROWS : (number + 1) * _ROWS], ignore_permissions=not modes)


def with_owners(task: Task, owners: bytes) -> Task:
    """A task that tells the agent that owners count, those of that digest; an empty one asks for nothing."""
    if not owners:
        return task
    return msgspec.structs.replace(task, features=(*task.features, OWNERS), owners=owners)


def _dated(entries: Sequence[Entry], mtime_ns: int) -> tuple[Entry, ...]:
    return tuple(msgspec.structs.replace(entry, mtime_ns=mtime_ns) for entry in entries)


def out_of_place(message: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"the agent sent {type(message).__name__} out of place")
