"""What every agent that asks for a tree is told first: its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import RemoteProtocolError
from agent.wire.channel import Channel
from agent.wire.messages import IndexBegin, IndexEnd, IndexFile

if TYPE_CHECKING:
    from reconciler.sync.serving import TreeSource


async def send_index(channel: Channel, source: TreeSource, task: str) -> None:
    """All of it, to an agent that has asked for it."""
    await channel.send(
        IndexBegin(task=task, entries=len(source.entries), bytes=source.bytes, mtime_ns=source.mtime_ns)
    )
    for batch in source.batches:
        await channel.send(IndexFile(task=task, entries=batch))
    await channel.send(IndexEnd(task=task, tree=source.tree))


def out_of_place(message: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"the agent sent {type(message).__name__} out of place")
