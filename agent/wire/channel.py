"""What a sync task needs of a connection; `agent/session.py` and `reconciler/sync/hub.py` provide it."""

from typing import Protocol

from agent.wire.messages import AnyMessage


class Channel(Protocol):
    """One task's view of the two connections of a session, already routed by task id.

    `send` puts control messages (`Task`, `TaskReport`, `Cancel`) on the control connection and all
    others on the bulk one. `payload` is the raw frame that a `BlockResponseBin` announces; it may still be
    read after `send` has returned, so leave it as it is; it is empty or None where `size` is 0. `send`
    waits while the peer is slow; `receive` gives the next message for this task and, for a
    `BlockResponseBin`, its payload. Both raise `agent.errors.TransferFailed` once the session is gone.
    """

    async def send(
        self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None
    ) -> None: ...

    async def receive(self) -> tuple[AnyMessage, bytes | None]: ...
