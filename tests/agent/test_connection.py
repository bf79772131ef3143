"""The state machine: every message in every phase, through a pair of connections, cut anywhere."""

import struct
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from agent.wire.bulk import BlockResponseBin
from agent.wire.connection import TRANSITIONS, Connection, Phase, Received, Role
from agent.wire.frames import CONTROL_LIMIT, DATA_LIMIT, UNAUTHENTICATED_LIMIT
from agent.wire.messages import AnyMessage, Entry, HelloAck, IndexFile, Ping, TaskReport
from tests.agent.exchanges import (
    BULK_HELLO,
    EXAMPLES,
    HELLO,
    PAYLOAD,
    pair_in,
    payload_for,
    raw,
    wire,
)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("speaker", list(Role), ids=lambda r: r.value)
@pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.value)
def test_each_message_in_each_phase(phase: Phase, speaker: Role, message: AnyMessage) -> None:
    """Where the table allows it, it arrives; else the sender's end and the receiver's both refuse it."""
    ends = pair_in(phase)
    payload = payload_for(message)
    if (phase, speaker, type(message)) in TRANSITIONS:
        data = wire(ends[speaker], message, payload)
        assert list(ends[speaker.other].receive_data(data)) == [Received(message, payload, len(data))]
        assert ends[speaker].phase is ends[speaker.other].phase
        return
    with pytest.raises(LocalProtocolError):
        ends[speaker].send(message, payload)
    assert ends[speaker].phase is phase
    with pytest.raises(RemoteProtocolError):
        list(ends[speaker.other].receive_data(raw(message, payload)))
    with pytest.raises(RemoteProtocolError):
        list(ends[speaker.other].receive_data(b""))


def test_a_refusal_ends_the_connection() -> None:
    ends = pair_in(Phase.CONTROL_ANSWER)
    data = wire(ends[Role.PRIMARY], HelloAck(accepted=False, reason="TokenRefused"))
    list(ends[Role.AGENT].receive_data(data))
    assert {end.phase for end in ends.values()} == {Phase.ENDED}
    ends[Role.AGENT].receive_eof()


CONVERSATION: list[tuple[AnyMessage, bytes | None]] = [
    (EXAMPLES[10], None),
    (IndexFile(task="t", entries=tuple(Entry(f"f{n}", "file", size=n) for n in range(400))), None),
    (EXAMPLES[12], None),
    (EXAMPLES[14], PAYLOAD),
    (BlockResponseBin(task="t", size=0, blocks=((0, 1, -1),)), b""),
    (BlockResponseBin(task="t", size=200_000, blocks=((1, 0, 200_000),)), b"z" * 200_000),
    (Ping(sequence=7), None),
]


@given(st.lists(st.integers(1, 100_000), max_size=30))
def test_bulk_data_cut_anywhere(cuts: list[int]) -> None:
    ends = pair_in(Phase.BULK)
    stream = b"".join(wire(ends[Role.PRIMARY], message, payload) for message, payload in CONVERSATION)
    found: list[Received] = []
    for cut in [*cuts, len(stream)]:
        found += ends[Role.AGENT].receive_data(stream[:cut])
        stream = stream[cut:]
    assert [(r.message, r.payload) for r in found] == CONVERSATION


def test_bulk_data_byte_by_byte() -> None:
    ends = pair_in(Phase.BULK)
    stream = b"".join(wire(ends[Role.PRIMARY], message, payload) for message, payload in CONVERSATION)
    found: list[Received] = []
    for at in range(len(stream)):
        found += ends[Role.AGENT].receive_data(stream[at : at + 1])
    assert [(r.message, r.payload) for r in found] == CONVERSATION


@pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.value)
@given(data=st.binary(max_size=600), whole=st.booleans())
def test_random_bytes_end_in_a_remote_error_or_nothing(phase: Phase, data: bytes, whole: bool) -> None:
    for role in Role:
        end = pair_in(phase)[role]
        pieces = [data] if whole else [data[at : at + 1] for at in range(len(data))]
        try:
            for piece in pieces:
                list(end.receive_data(piece))
        except RemoteProtocolError:
            continue
        assert end.buffered <= len(data)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(max_size=5)
        | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from([type(message).__struct_config__.tag for message in EXAMPLES]),
)
def test_well_formed_nonsense_is_refused(value: object, tag: str) -> None:
    body = msgspec.msgpack.encode(value | {"type": tag} if isinstance(value, dict) else value)
    end = pair_in(Phase.BULK)[Role.PRIMARY]
    try:
        found = list(end.receive_data(struct.pack(">I", len(body)) + body))
    except RemoteProtocolError:
        return
    assert [type(r.message) for r in found] <= [Ping]


def test_deep_nesting_is_refused() -> None:
    body = b"\x91" * 900_000 + b"\xc0"
    end = pair_in(Phase.CONTROL)[Role.PRIMARY]
    with pytest.raises(RemoteProtocolError):
        list(end.receive_data(struct.pack(">I", len(body)) + body))


@pytest.mark.parametrize(
    ("phase", "limit"),
    [
        (Phase.PAIRING, UNAUTHENTICATED_LIMIT),
        (Phase.HELLO, UNAUTHENTICATED_LIMIT),
        (Phase.CONTROL, CONTROL_LIMIT),
        (Phase.BULK, CONTROL_LIMIT),
    ],
)
@pytest.mark.parametrize("excess", [None, 1, 2**31])
def test_limits_depend_on_the_phase(phase: Phase, limit: int, excess: int | None) -> None:
    size = 0 if excess is None else min(limit + excess, 2**32 - 1)
    end = pair_in(phase)[Role.PRIMARY]
    with pytest.raises(RemoteProtocolError, match="announced a frame"):
        list(end.receive_data(struct.pack(">I", size)))
    list(pair_in(phase)[Role.PRIMARY].receive_data(struct.pack(">I", limit)))


@pytest.mark.parametrize("size", [-1, DATA_LIMIT + 1, 2**62])
def test_no_raw_frame_larger_than_the_limit(size: int) -> None:
    message = BlockResponseBin(task="t", size=size, blocks=())
    with pytest.raises(RemoteProtocolError):
        list(pair_in(Phase.BULK)[Role.AGENT].receive_data(raw(message)))


@pytest.mark.parametrize("sent", [b"", b"p" * 299, b"p" * 301])
def test_the_raw_frame_has_exactly_the_announced_size(sent: bytes) -> None:
    message = EXAMPLES[14]
    ends = pair_in(Phase.BULK)
    with pytest.raises(LocalProtocolError):
        ends[Role.PRIMARY].send(message, sent)
    with pytest.raises(RemoteProtocolError):
        list(ends[Role.AGENT].receive_data(raw(message, sent)))


def test_nothing_but_a_raw_frame_follows_its_announcement() -> None:
    data = raw(EXAMPLES[14]) + raw(Ping(sequence=1))
    with pytest.raises(RemoteProtocolError, match="300 bytes"):
        list(pair_in(Phase.BULK)[Role.AGENT].receive_data(data))


def test_messages_before_a_mistake_arrive() -> None:
    end = pair_in(Phase.CONTROL)[Role.PRIMARY]
    found = []
    with pytest.raises(RemoteProtocolError):
        for received in end.receive_data(raw(Ping(sequence=4)) + raw(HELLO)):
            found.append(received.message)
    assert found == [Ping(sequence=4)]


def test_an_error_never_quotes_the_peer() -> None:
    body = msgspec.msgpack.encode({"type": "secret-looking-tag", "x": "\x1b[31m"})
    with pytest.raises(RemoteProtocolError) as caught:
        list(pair_in(Phase.CONTROL)[Role.PRIMARY].receive_data(struct.pack(">I", len(body)) + body))
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("phase", [Phase.CONTROL, Phase.BULK])
@pytest.mark.parametrize("cut", [1, 4, 5, 12])
def test_end_in_the_middle_of_a_message(phase: Phase, cut: int) -> None:
    end = pair_in(phase)[Role.PRIMARY]
    list(end.receive_data(raw(Ping(sequence=1))[:cut]))
    with pytest.raises(RemoteProtocolError, match="middle"):
        end.receive_eof()


def test_end_between_announcement_and_raw_frame() -> None:
    end = pair_in(Phase.BULK)[Role.AGENT]
    list(end.receive_data(raw(EXAMPLES[14])))
    with pytest.raises(RemoteProtocolError, match="middle"):
        end.receive_eof()


@pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.value)
def test_end_between_messages(phase: Phase) -> None:
    end = pair_in(phase)[Role.PRIMARY]
    if phase in (Phase.CONTROL, Phase.BULK, Phase.ENDED):
        end.receive_eof()
        assert end.phase is Phase.ENDED
        return
    with pytest.raises(RemoteProtocolError, match=phase.value):
        end.receive_eof()


def test_a_message_too_large_is_our_error_and_changes_nothing() -> None:
    ends = pair_in(Phase.CONTROL)
    with pytest.raises(LocalProtocolError):
        ends[Role.AGENT].send(TaskReport(task="t", state="FAILED", message="x" * CONTROL_LIMIT))
    data = wire(ends[Role.AGENT], Ping(sequence=1))
    assert [r.message for r in ends[Role.PRIMARY].receive_data(data)] == [Ping(sequence=1)]


def test_payloads_are_passed_through_without_a_copy() -> None:
    payload = bytearray(PAYLOAD)
    buffers = pair_in(Phase.BULK)[Role.PRIMARY].send(EXAMPLES[14], payload)
    assert buffers[-1] is payload


def test_unknown_fields_are_ignored() -> None:
    body = msgspec.msgpack.encode({"type": "ping", "sequence": 5, "later": [1, 2]})
    found = list(pair_in(Phase.CONTROL)[Role.AGENT].receive_data(struct.pack(">I", len(body)) + body))
    assert [r.message for r in found] == [Ping(sequence=5)]


class Conversation(RuleBasedStateMachine):
    """Two ends, bytes in flight in both directions delivered in pieces of any size, messages of any kind.

    Whatever the table allows arrives, whole and in order; what it does not allow is refused by the
    sender's own end. As in reality, a side that waits for an answer says nothing.
    """

    ends: dict[Role, Connection]

    @initialize(start=st.sampled_from([Phase.PAIRING, Phase.HELLO]))
    def begin(self, start: Phase) -> None:
        self.ends = {role: Connection(role, start) for role in Role}
        self.flying = {role: bytearray() for role in Role}
        self.expected: dict[Role, list[tuple[AnyMessage, bytes | None]]] = {role: [] for role in Role}

    @rule(
        speaker=st.sampled_from(list(Role)),
        message=st.sampled_from([*EXAMPLES, BULK_HELLO]),
        size=st.integers(0, 70_000),
    )
    def say(self, speaker: Role, message: AnyMessage, size: int) -> None:
        if isinstance(message, BlockResponseBin):
            message = msgspec.structs.replace(message, size=size)
        payload = b"q" * size if isinstance(message, BlockResponseBin) else None
        try:
            data = wire(self.ends[speaker], message, payload)
        except LocalProtocolError:
            return
        self.flying[speaker] += data
        self.expected[speaker].append((message, payload))

    @rule(speaker=st.sampled_from(list(Role)), count=st.integers(1, 5000))
    def deliver(self, speaker: Role, count: int) -> None:
        piece, self.flying[speaker] = self.flying[speaker][:count], self.flying[speaker][count:]
        for received in self.ends[speaker.other].receive_data(bytes(piece)):
            assert (received.message, received.payload) == self.expected[speaker].pop(0)

    @precondition(lambda self: hasattr(self, "ends"))
    @rule(speaker=st.sampled_from(list(Role)))
    def deliver_all(self, speaker: Role) -> None:
        self.deliver(speaker, len(self.flying[speaker]) + 1)
        assert self.expected[speaker] == []

    @invariant()
    def nothing_is_held_back(self) -> None:
        for role in Role if hasattr(self, "ends") else ():
            assert self.ends[role].buffered <= DATA_LIMIT


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestConversation = Conversation.TestCase


def test_a_conversation_does_not_start_in_its_middle() -> None:
    with pytest.raises(ValueError, match="session-control"):
        Connection(Role.AGENT, Phase.CONTROL)


def test_errors_are_protocol_errors() -> None:
    kinds: Iterable[type[Exception]] = (LocalProtocolError, RemoteProtocolError)
    assert all(issubclass(kind, ProtocolError) for kind in kinds)
