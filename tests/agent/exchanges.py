"""An example of every message, and connections brought to each phase by talking."""

import struct

import msgspec

from agent.wire.bulk import BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.connection import Connection, Phase, Role
from agent.wire.forecast import Forecast, Item, Sums
from agent.wire.messages import (
    AnyMessage,
    Cancel,
    DriftReport,
    Entry,
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
    Standing,
    SyncStart,
    Task,
    TaskReport,
)

DIGEST = bytes(range(32))
HELLO = Hello(node="web-1", protocols=(4, 3, 2), agent_version="1", signature=b"s" * 64)
BULK_HELLO = msgspec.structs.replace(HELLO, session=b"i" * 16)
ACCEPTED = HelloAck(accepted=True, protocol=4, session=b"i" * 16, epoch=3)
PAYLOAD = b"p" * 300

EXAMPLES: list[AnyMessage] = [
    PairRequest(node="web-1", certificate=b"c" * 400, pinned=True, signature=b"s" * 64, agent_version="1"),
    PairAck(accepted=True),
    HELLO,
    ACCEPTED,
    Ping(sequence=1),
    Pong(sequence=1),
    Task(id="t", project="p", target_path="/srv/p", observe=False, strategy="mirror", tree=DIGEST),
    Cancel(task="t", reason="why"),
    TaskReport(task="t", state="SUCCESS", established=DIGEST),
    SyncStart(task="t"),
    IndexBegin(task="t", entries=1, bytes=5),
    IndexFile(task="t", entries=(Entry("a", "file", 0o644, 5, 1, 131072, DIGEST),)),
    IndexEnd(task="t", tree=DIGEST),
    BlockRequest(task="t", blocks=((0, 0),)),
    BlockResponseBin(task="t", size=len(PAYLOAD), blocks=((0, 0, len(PAYLOAD)),)),
    DescribeBlocks(task="t", blocks=((0, 0),)),
    BlockDescriptions(task="t", blocks=((0, 0, b"d" * 8, b"a" * 144),)),
    Standing(state="unsure", epoch=3, message="why"),
    DriftReport(project="p", target_path="/srv/p", digest=DIGEST, count=1),
    Forecast(task="t", items=(Item("update", "a", size=3, requested=3),), sums=Sums(counts={"update": 1})),
    IndexOwners(task="t", names=(("app", "www-data"), ("", "é")), runs=((1, 0),)),
]

STARTS: dict[Phase, tuple[Phase, list[AnyMessage]]] = {
    Phase.PAIRING: (Phase.PAIRING, []),
    Phase.PAIRING_ANSWER: (Phase.PAIRING, [EXAMPLES[0]]),
    Phase.HELLO: (Phase.HELLO, []),
    Phase.CONTROL_ANSWER: (Phase.HELLO, [HELLO]),
    Phase.BULK_ANSWER: (Phase.HELLO, [BULK_HELLO]),
    Phase.CONTROL: (Phase.HELLO, [HELLO, ACCEPTED]),
    Phase.BULK: (Phase.HELLO, [BULK_HELLO, ACCEPTED]),
    Phase.ENDED: (Phase.PAIRING, [EXAMPLES[0], EXAMPLES[1]]),
}


def speaker_of(message: AnyMessage) -> Role:
    return Role.AGENT if isinstance(message, PairRequest | Hello) else Role.PRIMARY


def payload_for(message: AnyMessage) -> bytes | None:
    return PAYLOAD if isinstance(message, BlockResponseBin) else None


def wire(sender: Connection, message: AnyMessage, payload: bytes | None = None) -> bytes:
    return b"".join(bytes(buffer) for buffer in sender.send(message, payload))


def raw(message: AnyMessage, payload: bytes | None = None) -> bytes:
    """The bytes of a message without asking whether it may be sent."""
    body = msgspec.msgpack.encode(message)
    tail = b"" if payload is None else struct.pack(">I", len(payload)) + payload
    return struct.pack(">I", len(body)) + body + tail


def pair_in(phase: Phase) -> dict[Role, Connection]:
    """Both ends of a connection, brought to a phase by talking."""
    start, talk = STARTS[phase]
    ends = {role: Connection(role, start) for role in Role}
    for message in talk:
        speaker = speaker_of(message)
        data = wire(ends[speaker], message)
        assert [r.message for r in ends[speaker.other].receive_data(data)] == [message]
    assert {end.phase for end in ends.values()} == {phase}
    return ends
