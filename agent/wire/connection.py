"""The order of messages on one connection: a state machine without I/O, one for each end.

`receive_data` takes what the transport gave and yields messages; `send` takes a message and gives what
the transport shall write. Which message may come when is a table, the same for both ends. A peer that
breaks it raises RemoteProtocolError, our own code that does raises LocalProtocolError; after either the
connection is over. Proof of identity (certificates, signatures) is not judged here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import msgspec

from agent.errors import LocalProtocolError, RemoteProtocolError
from agent.wire.base import Message
from agent.wire.bulk import BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.forecast import Forecast
from agent.wire.frames import CONTROL_LIMIT, DATA_LIMIT, UNAUTHENTICATED_LIMIT, Buffer, FrameReader, header
from agent.wire.messages import (
    AnyMessage,
    Cancel,
    Command,
    DriftReport,
    Hello,
    HelloAck,
    IndexBegin,
    IndexEnd,
    IndexFile,
    IndexOwners,
    PairAck,
    PairRequest,
    Ping,
    Pong,
    Removal,
    Standing,
    SyncStart,
    Task,
    TaskProgress,
    TaskReport,
)
from agent.wire.renewal import CertificateAnswer, CertificateOffer, RenewCertificate


class Role(Enum):
    AGENT = "agent"
    PRIMARY = "primary"

    @property
    def other(self) -> "Role":
        return Role.PRIMARY if self is Role.AGENT else Role.AGENT


class Phase(Enum):
    """Where a connection stands; docs/wire-protocol.md draws it."""

    PAIRING = "pairing"
    PAIRING_ANSWER = "pairing-answer"
    HELLO = "hello"
    CONTROL_ANSWER = "control-answer"
    BULK_ANSWER = "bulk-answer"
    CONTROL = "session-control"
    BULK = "session-bulk"
    ENDED = "ended"


_A, _P = Role.AGENT, Role.PRIMARY

TRANSITIONS: dict[tuple[Phase, Role, type[Message]], Phase] = {
    (Phase.PAIRING, _A, PairRequest): Phase.PAIRING_ANSWER,
    (Phase.PAIRING_ANSWER, _P, PairAck): Phase.ENDED,
    # Hello with a session id leads to BULK_ANSWER, an answer that refuses leads to ENDED: see _advance.
    (Phase.HELLO, _A, Hello): Phase.CONTROL_ANSWER,
    (Phase.CONTROL_ANSWER, _P, HelloAck): Phase.CONTROL,
    (Phase.BULK_ANSWER, _P, HelloAck): Phase.BULK,
    (Phase.CONTROL, _P, Ping): Phase.CONTROL,
    (Phase.CONTROL, _P, Pong): Phase.CONTROL,
    (Phase.CONTROL, _P, Task): Phase.CONTROL,
    (Phase.CONTROL, _P, Command): Phase.CONTROL,
    (Phase.CONTROL, _P, Removal): Phase.CONTROL,
    (Phase.CONTROL, _P, Cancel): Phase.CONTROL,
    (Phase.CONTROL, _P, Standing): Phase.CONTROL,
    (Phase.CONTROL, _A, Ping): Phase.CONTROL,
    (Phase.CONTROL, _A, Pong): Phase.CONTROL,
    (Phase.CONTROL, _A, TaskReport): Phase.CONTROL,
    (Phase.CONTROL, _A, TaskProgress): Phase.CONTROL,
    (Phase.CONTROL, _A, Forecast): Phase.CONTROL,
    (Phase.CONTROL, _A, DriftReport): Phase.CONTROL,
    (Phase.CONTROL, _P, RenewCertificate): Phase.CONTROL,
    (Phase.CONTROL, _A, CertificateOffer): Phase.CONTROL,
    (Phase.CONTROL, _P, CertificateAnswer): Phase.CONTROL,
    (Phase.BULK, _P, Ping): Phase.BULK,
    (Phase.BULK, _P, Pong): Phase.BULK,
    (Phase.BULK, _P, IndexBegin): Phase.BULK,
    (Phase.BULK, _P, IndexFile): Phase.BULK,
    (Phase.BULK, _P, IndexOwners): Phase.BULK,
    (Phase.BULK, _P, IndexEnd): Phase.BULK,
    (Phase.BULK, _P, BlockResponseBin): Phase.BULK,
    (Phase.BULK, _P, BlockDescriptions): Phase.BULK,
    (Phase.BULK, _A, Ping): Phase.BULK,
    (Phase.BULK, _A, Pong): Phase.BULK,
    (Phase.BULK, _A, SyncStart): Phase.BULK,
    (Phase.BULK, _A, BlockRequest): Phase.BULK,
    (Phase.BULK, _A, DescribeBlocks): Phase.BULK,
}
"""(where the connection stands, who speaks, what is said) -> where it stands then; all else is an error."""

ON_CONTROL: tuple[type[Message], ...] = (
    Task,
    Command,
    Removal,
    Cancel,
    TaskReport,
    TaskProgress,
    Forecast,
)
"""Task messages that travel on the control connection; all others travel on the bulk one."""

_SESSION = frozenset({Phase.CONTROL, Phase.BULK})

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the peer; `payload` is the raw frame that followed a BlockResponseBin, else None."""

    message: AnyMessage
    payload: bytes | None = None
    size: int = 0
    """Bytes that message and payload took on the connection, their lengths included."""


class Connection:
    """One end of one connection, from its first byte after the TLS handshake to its end.

    `phase` starts as PAIRING or HELLO, which the preface before TLS decided.
    """

    def __init__(self, role: Role, phase: Phase) -> None:
        if phase not in (Phase.PAIRING, Phase.HELLO):
            raise ValueError(f"a connection does not start in the phase {phase.value}")
        self.role = role
        self.phase: Phase = phase
        self._reader = FrameReader()
        self._announced: tuple[BlockResponseBin, int] | None = None
        self._failed: RemoteProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes received that are no whole message yet, at most one frame and what came with it."""
        return self._reader.buffered

    def receive_data(self, data: Buffer) -> Iterator[Received]:
        """Take bytes from the peer and yield the messages they complete; iterate to the end.

        Raises RemoteProtocolError, after the messages before the mistake, and on every later call.
        """
        self._reader.feed(data)
        while (received := self._next()) is not None:
            yield received

    def receive_eof(self) -> None:
        """The peer closed its side; RemoteProtocolError if that cut a message or an exchange in two."""
        if self._failed is not None:
            raise self._failed
        if self._reader.in_frame or self._announced is not None:
            raise self._fail("the peer closed the connection in the middle of a message")
        if self.phase not in _SESSION and self.phase is not Phase.ENDED:
            raise self._fail(f"the peer closed the connection in the phase {self.phase.value}")
        self.phase = Phase.ENDED

    def send(self, message: AnyMessage, payload: Buffer | None = None) -> list[Buffer]:
        """What to write for a message, as buffers in order; the payload is passed through uncopied.

        Raises LocalProtocolError, and changes nothing, if the message may not be sent now, is too
        large, or does not match its payload.
        """
        following = self._following(self.role, message)
        if following is None:
            raise LocalProtocolError(f"a {_name(message)} may not be sent in the phase {self.phase.value}")
        body = _encode(message)
        buffers: list[Buffer] = [header(len(body), self._limit()) + body]
        announced = message.size if isinstance(message, BlockResponseBin) else 0
        if announced != (0 if payload is None else len(payload)):
            raise LocalProtocolError(
                f"a {_name(message)} announces {announced} bytes and has another payload"
            )
        if payload is not None and announced:
            buffers[0] = bytes(buffers[0]) + header(announced, DATA_LIMIT)
            buffers.append(payload)
        self.phase = following
        return buffers

    # --- inside --------------------------------------------------------------------------------

    def _next(self) -> Received | None:
        if self._failed is not None:
            raise self._failed
        try:
            return self._parse()
        except RemoteProtocolError as error:
            self._failed = error
            raise

    def _parse(self) -> Received | None:
        if self._announced is not None:
            return self._parse_payload(*self._announced)
        if self.phase is Phase.ENDED:
            if self._reader.buffered:
                raise RemoteProtocolError("the peer sent more after the connection's last message")
            return None
        frame = self._reader.next_frame(self._limit())
        if frame is None:
            return None
        try:
            message = _decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # The decoder's text may quote what the peer sent; it helps nobody and is not ours to print.
            raise RemoteProtocolError("the peer sent a frame that is no message of this protocol") from None
        following = self._following(self.role.other, message)
        if following is None:
            raise RemoteProtocolError(
                f"the peer sent a {_name(message)}, which has no place in the phase {self.phase.value}"
            )
        self.phase = following
        taken = len(frame) + 4
        if not isinstance(message, BlockResponseBin):
            return Received(message, None, taken)
        if not 0 <= message.size <= DATA_LIMIT:
            raise RemoteProtocolError(
                f"the peer announced {message.size} bytes of blocks, allowed are 0 to {DATA_LIMIT}"
            )
        if message.size == 0:
            return Received(message, b"", taken)
        self._announced = (message, taken)
        return self._parse_payload(message, taken)

    def _parse_payload(self, message: BlockResponseBin, taken: int) -> Received | None:
        frame = self._reader.next_frame(message.size)
        if frame is None:
            return None
        if len(frame) != message.size:
            raise RemoteProtocolError(
                f"the peer announced {message.size} bytes of blocks and sent {len(frame)}"
            )
        self._announced = None
        return Received(message, frame, taken + len(frame) + 4)

    def _limit(self) -> int:
        return CONTROL_LIMIT if self.phase in _SESSION else UNAUTHENTICATED_LIMIT

    def _following(self, speaker: Role, message: AnyMessage) -> Phase | None:
        following = TRANSITIONS.get((self.phase, speaker, type(message)))
        if isinstance(message, Hello) and message.session and following is not None:
            return Phase.BULK_ANSWER
        if isinstance(message, HelloAck) and not message.accepted and following is not None:
            return Phase.ENDED
        return following

    def _fail(self, text: str) -> RemoteProtocolError:
        self._failed = RemoteProtocolError(text)
        return self._failed


def _name(message: AnyMessage) -> str:
    return type(message).__name__
