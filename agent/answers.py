"""Waits for what the primary says in the course of a task."""

import trio

from agent.errors import TransferFailed
from agent.failures import TaskFailed
from agent.wire.channel import Channel
from agent.wire.messages import AnyMessage, Cancel

ANSWER_DEADLINE = 120.0
"""Seconds without any answer to what was asked, after which a task gives up."""


async def receive(channel: Channel, *, deadline: float = ANSWER_DEADLINE) -> tuple[AnyMessage, bytes | None]:
    """The next message, within a deadline; raises TaskFailed when the primary calls the task off."""
    with trio.move_on_after(deadline):
        message, payload = await channel.receive()
        if isinstance(message, Cancel):
            raise TaskFailed("Cancelled", message.reason or "the primary called the task off")
        return message, payload
    raise TransferFailed(f"the primary sent nothing for {deadline:.0f} s")
