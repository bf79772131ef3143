"""Takes an index from the primary, which is not trusted with it."""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from agent.answers import receive
from agent.differences import DifferenceCheck, Differences, KnownLedger, differences
from agent.errors import PathRefused, RemoteProtocolError
from agent.features import agreed, owners_of, times_count
from agent.ignore import Ignore
from agent.index import MAX_TIME
from agent.index_check import Bounds, IndexCheck
from agent.ownership import NameRun, Names, OwnersCheck, spread
from agent.rules import AgentRules
from agent.runs import Known, in_order
from agent.wire.channel import Channel
from agent.wire.messages import (
    OWNERS,
    RUNS,
    AnyMessage,
    Entry,
    IndexBegin,
    IndexEnd,
    IndexFile,
    IndexOwners,
    SyncStart,
    Task,
)

_MAX_OWNERS = 10_000
"""Messages of owners that are passed over; the largest tree needs some hundred."""


@dataclass(frozen=True, slots=True)
class Index:
    """`mtime_ns` is the time of the tree's own directory; `owned`, where owners count, says whose the entries
    are."""

    entries: tuple[Entry, ...]
    mtime_ns: int
    owned: tuple[NameRun, ...] = ()
    found: Differences | None = None
    """What it comes to, where it was compared with what is recorded; `entries` are those that were sent."""

    def names(self) -> dict[str, Names]:
        """Whose the entries are, by path."""
        return spread((entry.path for entry in self.entries), self.owned)


async def fetch_index(
    channel: Channel,
    task: Task,
    rules: AgentRules,
    ignore: Ignore,
    *,
    reserved: Collection[str],
    features: tuple[str, ...] | None = None,
    known: Sequence[Entry] = (),
) -> Index:
    """Asks for a task's index and takes it, checked entry by entry and then as a whole.

    `reserved` are paths that it may not name, `features` what of the task's is made use of, by default all
    that this agent knows. `known` are entries of an index that was taken earlier for a task with the same
    ignore lines; those that are still right need not be sent. Raises PathRefused or RemoteProtocolError for
    what must not be placed, TransferFailed once the session is gone.
    """
    use = agreed(task) if features is None else features
    if owners_of(task):
        use = (*use, OWNERS)
    taking = Taking(channel, task, rules, ignore, reserved)
    mine: Known | None = None
    if known and RUNS in task.features:
        mine = await trio.to_thread.run_sync(
            lambda: Known(in_order(known), modes=not task.ignore_permissions, times=times_count(task))
        )
    return await _fetch(taking, channel, task, use, mine)


async def fetch_differences(
    channel: Channel,
    task: Task,
    rules: AgentRules,
    ignore: Ignore,
    *,
    reserved: Collection[str],
    recorded: KnownLedger,
) -> tuple[Differences, int]:
    """As `fetch_index`, where what is recorded was looked at, and owners do not count: what the index and the
    record differ in, and the time of the tree's own directory."""
    taking = Taking(channel, task, rules, ignore, reserved)
    mine = recorded if RUNS in task.features and len(recorded.ledger) else None
    index = await _fetch(taking, channel, task, agreed(task), mine)
    if index.found is not None:
        return index.found, index.mtime_ns
    found = await trio.to_thread.run_sync(differences, recorded.ledger, (), index.entries)
    return found, index.mtime_ns


async def _fetch(
    taking: "Taking", channel: Channel, task: Task, use: tuple[str, ...], mine: Known | KnownLedger | None
) -> Index:
    """Without what is known, where the index can't be taken with it: that may be at fault, not others."""
    if mine is not None:
        await channel.send(SyncStart(task=task.id, features=(*use, RUNS), known=mine.told))
        finish = await taking.take(mine)
        with contextlib.suppress(PathRefused, RemoteProtocolError):
            return await trio.to_thread.run_sync(finish)
    await channel.send(SyncStart(task=task.id, features=use))
    finish = await taking.take(None)
    return await trio.to_thread.run_sync(finish)


class Taking:
    def __init__(
        self, channel: Channel, task: Task, rules: AgentRules, ignore: Ignore, reserved: Collection[str]
    ) -> None:
        self._channel = channel
        self._task = task
        self._rules = rules
        self._ignore = ignore
        self._reserved = reserved

    async def take(self, known: Known | KnownLedger | None) -> partial[Index]:
        """Receives to the end of the index; gives what checks it as a whole."""
        task = self._task
        message = await self.receive()
        if not isinstance(message, IndexBegin) or message.task != task.id:
            raise RemoteProtocolError(f"an index was expected and {type(message).__name__} came")
        if known is None and message.same:
            raise RemoteProtocolError("the index refers to runs that nobody told of")
        mtime_ns = min(max(message.mtime_ns, 0), MAX_TIME)
        try:
            check = await trio.to_thread.run_sync(self._begin, message, known)
        except (PathRefused, RemoteProtocolError) as error:
            if known is None:
                raise
            check = _Refused(error, self._rules.max_entries)
        owners = OwnersCheck(min(message.entries, self._rules.max_entries)) if owners_of(task) else None
        while True:
            message = await self.receive()
            if isinstance(message, IndexFile) and message.task == task.id and message.entries:
                try:
                    await trio.to_thread.run_sync(check.add, message.entries)
                    self.took(message.entries)
                except (PathRefused, RemoteProtocolError) as error:
                    if known is None or isinstance(check, _Refused):
                        raise
                    check = _Refused(error, self._rules.max_entries)
            elif isinstance(message, IndexOwners) and message.task == task.id and message.runs and owners:
                if isinstance(check, _Refused):
                    check.pass_over()
                else:
                    await trio.to_thread.run_sync(owners.add, message)
            elif isinstance(message, IndexEnd) and message.task == task.id:
                return partial(self._finish, check, owners, message.tree, mtime_ns)
            else:
                raise RemoteProtocolError(
                    f"the rest of an index was expected and {type(message).__name__} came"
                )

    async def receive(self) -> AnyMessage:
        """The next message of the index."""
        return (await receive(self._channel))[0]

    def took(self, entries: Sequence[Entry]) -> None:
        """These were checked, as far as that goes for entries alone."""

    def check_tree(self, tree: bytes) -> None:
        """Refuses an index that says at its end that it is of another tree."""
        if tree != self._task.tree:
            raise RemoteProtocolError("the index is of another tree than the task")

    def _begin(self, begin: IndexBegin, known: Known | KnownLedger | None) -> "IndexCheck | _Refused":
        rules = self._rules
        bounds = Bounds(
            entries=begin.entries,
            total_bytes=begin.bytes,
            max_entries=rules.max_entries,
            max_file_size=rules.max_file_size,
            max_total_size=rules.max_total_size,
            reserved=self._reserved,
        )
        return known.begin(begin.same, **bounds) if known is not None else IndexCheck(**bounds)

    def _finish(
        self, check: "IndexCheck | _Refused", owners: OwnersCheck | None, tree: bytes, mtime_ns: int
    ) -> Index:
        task, ignore = self._task, self._ignore
        self.check_tree(tree)
        if isinstance(check, _Refused):
            raise check.error
        sent = list(check.entries)
        entries = check.finish(tree, ignore_permissions=task.ignore_permissions)
        # An entry's directories stand before it, so each needs to be matched alone only.
        for entry in sent if ignore else ():
            if ignore.matches(entry.path, entry.kind == "directory"):
                raise RemoteProtocolError(f"the index names {entry.path!r}, which the task ignores")
        owned = owners.finish(owners_of(task)) if owners is not None else ()
        return Index(entries, mtime_ns, owned, check.found if isinstance(check, DifferenceCheck) else None)


class _Refused:
    """Takes the rest of an index that is wrong with what is known, so that all of it can be asked for.

    Raises what is wrong with it where that has more than this host allows, or never ends.
    """

    def __init__(self, error: PathRefused | RemoteProtocolError, room: int) -> None:
        self.error = error
        self._room = room
        self._owners_left = _MAX_OWNERS

    def add(self, batch: Sequence[Entry]) -> None:
        self._room -= len(batch)
        if self._room < 0:
            raise self.error

    def pass_over(self) -> None:
        """Whose the entries are says nothing once they are refused."""
        self._owners_left -= 1
        if self._owners_left < 0:
            raise self.error
