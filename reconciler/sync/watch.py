"""A task's channel whose peer has to show that it gets on."""

from collections.abc import Callable

import trio

from agent.errors import TrueupError
from agent.wire.channel import Channel
from agent.wire.messages import AnyMessage, TaskProgress

SILENCE = 600.0
"""Seconds without a word about a task, from an agent that is alive, after which the task is given up.
An agent that hashes or runs commands for hours says every minute that it gets on."""


Heard = Callable[[TaskProgress], None]
"""Told what an agent says of how far a task is; nothing of it is known to be true."""


class AgentUnreachable(TrueupError):
    """The node's agent is not connected, or went away before it reported; nobody knows what it did."""

    reason = "AgentUnreachable"
    retryable = True


class Watched:
    """The channel of a task on `node` for whoever serves it; signs of life are taken out.

    `receive` raises AgentUnreachable when nothing at all was said about the task for `silence` seconds.
    `heard` is told of each sign of life.
    """

    def __init__(
        self, channel: Channel, node: str, silence: float = SILENCE, heard: Heard = lambda _progress: None
    ) -> None:
        self._channel = channel
        self._node = node
        self._silence = silence
        self._heard = heard

    async def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None:
        await self._channel.send(message, payload)

    async def receive(self) -> tuple[AnyMessage, bytes | None]:
        while True:
            with trio.move_on_after(self._silence) as waiting:
                message, payload = await self._channel.receive()
            if waiting.cancelled_caught:
                raise AgentUnreachable(
                    f"the agent of the node {self._node} did not get on with the task for"
                    f" {self._silence:g} seconds",
                    hint="look at its log; a disk may hang",
                )
            if not isinstance(message, TaskProgress):
                return message, payload
            self._heard(message)
