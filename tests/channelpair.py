"""Both ends of a task's channel in memory, encoded as on the wire and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from agent.errors import TransferFailed
from agent.wire.messages import AnyMessage

_decoder = msgspec.msgpack.Decoder(AnyMessage)
_encoder = msgspec.msgpack.Encoder()

CONTROL_FRAME = 1024 * 1024
DATA_FRAME = 4 * 1024 * 1024


@dataclass
class Traffic:
    """What one end sent: the names of its messages in order, and bytes."""

    messages: list[str] = field(default_factory=list)
    control_bytes: int = 0
    payload_bytes: int = 0

    def count(self, name: str) -> int:
        return self.messages.count(name)


@dataclass
class MemoryChannel:
    """One end. `alter` may change, drop (empty) or add to what this end sends."""

    _send: trio.MemorySendChannel[tuple[bytes, bytes | None]]
    _receive: trio.MemoryReceiveChannel[tuple[bytes, bytes | None]]
    sent: Traffic = field(default_factory=Traffic)
    alter: Callable[[AnyMessage, bytes | None], Sequence[tuple[AnyMessage, bytes | None]]] | None = None

    async def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None:
        raw = None if payload is None else bytes(payload)
        pieces = [(message, raw)] if self.alter is None else self.alter(message, raw)
        for piece, content in pieces:
            encoded = _encoder.encode(piece)
            assert len(encoded) <= CONTROL_FRAME
            assert content is None or len(content) <= DATA_FRAME
            self.sent.messages.append(type(piece).__name__)
            self.sent.control_bytes += len(encoded)
            self.sent.payload_bytes += len(content or b"")
            try:
                await self._send.send((encoded, content))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise TransferFailed("the session is gone") from error

    async def receive(self) -> tuple[AnyMessage, bytes | None]:
        try:
            encoded, content = await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            raise TransferFailed("the session is gone") from error
        return _decoder.decode(encoded), content

    def cut(self) -> None:
        """The session ends, for both."""
        self._send.close()
        self._receive.close()


def channel_pair(buffered: int = 4) -> tuple[MemoryChannel, MemoryChannel]:
    """The primary's and the agent's end; `buffered` messages fit between them."""
    to_agent, from_primary = trio.open_memory_channel[tuple[bytes, bytes | None]](buffered)
    to_primary, from_agent = trio.open_memory_channel[tuple[bytes, bytes | None]](buffered)
    return MemoryChannel(to_agent, from_agent), MemoryChannel(to_primary, from_primary)
