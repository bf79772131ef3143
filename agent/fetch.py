"""Takes an index from the primary, which is not trusted with it."""

from collections.abc import Collection

import trio

from agent.answers import receive
from agent.errors import RemoteProtocolError
from agent.features import agreed
from agent.ignore import Ignore
from agent.index import MAX_TIME, IndexCheck
from agent.rules import AgentRules
from agent.wire.channel import Channel
from agent.wire.messages import Entry, IndexBegin, IndexEnd, IndexFile, SyncStart, Task


async def fetch_index(
    channel: Channel,
    task: Task,
    rules: AgentRules,
    ignore: Ignore,
    *,
    reserved: Collection[str],
    features: tuple[str, ...] | None = None,
) -> tuple[tuple[Entry, ...], int]:
    """Asks for a task's index and takes it, checked entry by entry and then as a whole.

    `reserved` are paths that it may not name, `features` what of the task's is made use
    of, by default all that this agent knows. Gives the entries
    and the modification time of the tree's own directory. Raises PathRefused or RemoteProtocolError for what
    must not be placed, TransferFailed once the session is gone.
    """
    await channel.send(SyncStart(task=task.id, features=agreed(task) if features is None else features))
    message, _ = await receive(channel)
    if not isinstance(message, IndexBegin) or message.task != task.id:
        raise RemoteProtocolError(f"an index was expected and {type(message).__name__} came")
    mtime_ns = min(max(message.mtime_ns, 0), MAX_TIME)
    check = IndexCheck(
        entries=message.entries,
        total_bytes=message.bytes,
        max_entries=rules.max_entries,
        max_file_size=rules.max_file_size,
        max_total_size=rules.max_total_size,
        reserved=reserved,
    )
    while True:
        message, _ = await receive(channel)
        if isinstance(message, IndexFile) and message.task == task.id and message.entries:
            await trio.to_thread.run_sync(check.add, message.entries)
        elif isinstance(message, IndexEnd) and message.task == task.id:
            break
        else:
            raise RemoteProtocolError(f"the rest of an index was expected and {type(message).__name__} came")

    def finish() -> tuple[Entry, ...]:
        if message.tree != task.tree:
            raise RemoteProtocolError("the index is of another tree than the task")
        entries = check.finish(task.tree, ignore_permissions=task.ignore_permissions)
        # An entry's directories stand before it, so each needs to be matched alone only.
        for entry in entries if ignore else ():
            if ignore.matches(entry.path, entry.kind == "directory"):
                raise RemoteProtocolError(f"the index names {entry.path!r}, which the task ignores")
        return entries

    return await trio.to_thread.run_sync(finish), mtime_ns
