"""Who gets in: sessions against a real listener, with the wrong people at the door."""

import datetime
import logging
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.dial import PAIR_PREFACE, SESSION_PREFACE
from agent.link import LinkLost
from agent.node_token import NodeToken
from agent.wire.messages import Hello, HelloAck
from reconciler.sync import listener
from reconciler.sync.enrolment import Roster, judge_hello
from reconciler.sync.places import Places
from tests.certificates import LONG_AGO, odd_certificate, store_identity
from tests.connected import DEADLINE, Node, Setup, connected, make_node, running_hub, until

pytestmark = pytest.mark.usefixtures("no_traceback")


class Line(logging.Handler):
    """A line of the log. The other side of a connection may hear of its cause before it is written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.written = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.written.set()


async def test_a_strangers_certificate(tmp_path: Path) -> None:
    node, stranger = make_node(tmp_path), make_node(tmp_path, directory="stranger")
    line = Line("certificate is not enrolled")
    logging.getLogger("trueup").addHandler(line)
    try:
        async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
            with pytest.raises(LinkLost, match="does not accept our certificate"):
                await setup.hello(stranger)
            with trio.fail_after(DEADLINE):
                await line.written.wait()
    finally:
        logging.getLogger("trueup").removeHandler(line)


async def test_no_certificate(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        dialled = await setup.dial(None)
        with pytest.raises(trio.BrokenResourceError):
            await dialled.stream.receive_some(1)


async def test_an_expired_certificate(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    key = Ed25519PrivateKey.generate()
    ended = LONG_AGO + datetime.timedelta(days=1)
    store_identity(node.memory.tls_dir, key, odd_certificate("web-1", key=key, not_after=ended))
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        with pytest.raises(LinkLost, match="expired"):
            await setup.hello(node)


async def test_another_nodes_certificate(tmp_path: Path) -> None:
    one, two = make_node(tmp_path), make_node(tmp_path, "web-2")
    async with running_hub(tmp_path, [one.enrolment(paired=True), two.enrolment(paired=True)]) as setup:
        _, answer = await setup.hello(one, identity=two.memory.tls_dir)
        assert isinstance(answer, HelloAck)
        assert (answer.accepted, answer.reason) == (False, "CertificateRefused")


@pytest.mark.parametrize("ca", [True, False])
async def test_an_enrolled_certificate_cannot_sign_another(tmp_path: Path, ca: bool) -> None:
    """Even one that OpenSSL takes for an authority, enrolled by mistake."""
    node = make_node(tmp_path)
    key = Ed25519PrivateKey.generate()
    store_identity(node.memory.tls_dir, key, odd_certificate("web-1", key=key, ca=ca))
    child_key = Ed25519PrivateKey.generate()
    child = odd_certificate("child", key=child_key, signer=key, issuer="web-1")
    directory = store_identity(tmp_path / "child", child_key, child)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        if ca:
            _, answer = await setup.hello(node, identity=directory)
            assert isinstance(answer, HelloAck)
            assert (answer.accepted, answer.reason) == (False, "CertificateRefused")
            return
        with pytest.raises(LinkLost, match="certificate"):
            await setup.hello(node, identity=directory)


async def test_a_wrong_token_in_the_hello(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        _, answer = await setup.hello(node, signature=b"\0" * 64)
        assert isinstance(answer, HelloAck)
        assert (answer.accepted, answer.reason) == (False, "TokenRefused")
        assert "join again" in answer.message


async def test_no_common_protocol(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        _, answer = await setup.hello(node, protocols=(99,))
        assert isinstance(answer, HelloAck)
        assert (answer.accepted, answer.reason) == (False, "ProtocolUnsupported")
        _, answer = await setup.hello(node, protocols=(99, 2, 1))
        assert isinstance(answer, HelloAck)
        assert (answer.accepted, answer.protocol) == (True, 2)


async def test_a_bulk_connection_belongs_to_its_own_session(tmp_path: Path) -> None:
    one, two = make_node(tmp_path), make_node(tmp_path, "web-2")
    async with running_hub(tmp_path, [one.enrolment(paired=True), two.enrolment(paired=True)]) as setup:
        control, accepted = await setup.hello(one)
        assert isinstance(accepted, HelloAck)
        for node, session in ((two, accepted.session), (one, b"\0" * 16)):
            _, answer = await setup.hello(node, session=session)
            assert isinstance(answer, HelloAck)
            assert (answer.accepted, answer.reason) == (False, "SessionUnknown")
        assert setup.hub.connected() == frozenset()
        bulk, answer = await setup.hello(one, session=accepted.session)
        assert isinstance(answer, HelloAck)
        assert answer.accepted
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        _, again = await setup.hello(one, session=accepted.session)
        assert isinstance(again, HelloAck)
        assert not again.accepted
        await control.aclose()
        await until(setup, lambda: setup.hub.connected() == frozenset())
        with pytest.raises(LinkLost):
            await bulk.read()


@pytest.mark.parametrize("change", ["removed", "token", "pin", "repair"])
async def test_a_change_of_rights_ends_the_session_at_once(tmp_path: Path, change: str) -> None:
    node, other = make_node(tmp_path), make_node(tmp_path, "web-2")
    everyone = [node.enrolment(paired=True), other.enrolment(paired=True)]
    for member in (node, other):
        member.memory.identity(member.name)
    async with running_hub(tmp_path, everyone) as setup:
        for member in (node, other):
            member.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, node), connected(setup, other):
            if change == "removed":
                changed = []
            elif change == "token":
                replaced = Node("web-1", NodeToken.generate(), node.memory)
                changed = [replaced.enrolment(paired=True)]
            elif change == "pin":
                changed = [node.enrolment(paired=True, pin="0" * 64)]
            else:
                changed = [node.enrolment()]
            with trio.fail_after(120):
                await setup.hub.update([*changed, other.enrolment(paired=True)])
                assert "web-1" not in setup.hub.connected()
            assert "web-2" in setup.hub.connected()
            await setup.hub.update(everyone)
            assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}


async def test_a_node_opens_one_session_at_a_time(tmp_path: Path) -> None:
    """An agent that opens and opens would else hold every descriptor of the primary."""
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        opened = []
        for _ in range(5):
            control, accepted = await setup.hello(node)
            assert isinstance(accepted, HelloAck)
            assert accepted.accepted
            opened.append((control, accepted.session))
        with trio.fail_after(120):
            for control, _ in opened[:-1]:
                with pytest.raises(LinkLost):
                    await control.read()
        _, late = await setup.hello(node, session=opened[0][1])
        assert isinstance(late, HelloAck)
        assert late.reason == "SessionUnknown"
        _bulk, last = await setup.hello(node, session=opened[-1][1])
        assert isinstance(last, HelloAck)
        assert last.accepted
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}


def test_a_refusal_quotes_no_unknown_peer() -> None:
    hello = Hello(node="x\n2026 ERROR forged", protocols=(4, 3, 2), agent_version="1", signature=b"")
    refusal = judge_hello(hello, None, Roster(), server_fp="00")
    assert refusal is not None
    assert refusal.message.isprintable()


async def test_a_session_that_is_being_opened_is_revoked_too(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        control, accepted = await setup.hello(node)
        assert isinstance(accepted, HelloAck)
        await setup.hub.update([])
        with pytest.raises(LinkLost):
            await control.read()
        with pytest.raises(LinkLost):
            await setup.hello(node, session=accepted.session)


async def test_a_successor_with_the_same_key_is_accepted(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    node = make_node(tmp_path)
    async with running_hub(tmp_path / "first", [node.enrolment()], key=key) as first:
        await first.pair(node)
        node.memory.remember_server(first.hub.fingerprint)
    enrolled = [node.enrolment(paired=True)]
    async with running_hub(tmp_path / "second", enrolled, key=key) as second, connected(second, node):
        assert second.hub.connected() == {"web-1"}


async def test_another_certificate_for_the_same_key_is_shown_and_nobody_is_cut_off(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment()]) as setup, connected(setup, node):
        before = (await setup.dial(node)).stream.peer_certificate
        for name in ("server.crt", "server.key"):
            (tmp_path / "hub-tls" / name).write_text("damaged")
        await setup.hub.renew_certificate()
        # `dial` holds it to the same fingerprint.
        after = (await setup.dial(node)).stream.peer_certificate
        assert before is not None and after is not None and before != after
        assert await setup.hub.ping("web-1") > 0
        unpaired = make_node(tmp_path, "web-2")
        await setup.hub.update([node.enrolment(paired=True), unpaired.enrolment()])
        await setup.pair(unpaired)
        assert setup.hub.is_paired("web-2")


async def test_one_unreadable_record_keeps_out_nobody_else(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    broken = make_node(tmp_path, "web-2").enrolment()
    damaged = type(broken)("web-2", "not a key", certificate_der=b"garbage")
    async with running_hub(tmp_path, [node.enrolment(paired=True), damaged]) as setup:
        _, answer = await setup.hello(node)
        assert isinstance(answer, HelloAck)
        assert answer.accepted


# --- before anybody is known -------------------------------------------------------------------


async def wait_closed(stream: trio.abc.Stream) -> None:
    """The primary closes it, politely or, where it was told more than it read, with a reset."""
    with trio.fail_after(120), suppress(trio.BrokenResourceError):
        while await stream.receive_some(65536):
            pass


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"TRUEUP\x02P", b"TRUEUP\x01X", b"\x16\x03\x01\x02\x00\x01", b"\0" * 8],
)
async def test_whoever_speaks_something_else_is_closed(tmp_path: Path, data: bytes) -> None:
    async with running_hub(tmp_path) as setup:
        stream = await setup.open_raw()
        await stream.send_all(data)
        await wait_closed(stream)


@pytest.mark.parametrize("preface", [PAIR_PREFACE, SESSION_PREFACE])
@pytest.mark.parametrize("body", [b"", b"\0" * 200, b"\x16\x03\x01\x00\x05hello"])
async def test_broken_tls(tmp_path: Path, preface: bytes, body: bytes) -> None:
    async with running_hub(tmp_path) as setup:
        stream = await setup.open_raw()
        await stream.send_all(preface + body)
        await stream.send_eof()
        await wait_closed(stream)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0),
        struct.pack(">I", 4097),
        struct.pack(">I", 2**31),
        struct.pack(">I", 5) + b"\xffoops",
        struct.pack(">I", 18) + b"\x82\xa4type\xa4ping\xa8sequenc",
        struct.pack(">I", 4096) + b"x" * 100,
    ],
)
@pytest.mark.parametrize("preface", [PAIR_PREFACE, SESSION_PREFACE])
async def test_malformed_first_frames(tmp_path: Path, preface: bytes, data: bytes) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        dialled = await setup.dial(node, preface)
        await dialled.stream.send_all(data)
        stream = dialled.stream
        assert isinstance(stream.transport, trio.SocketStream)
        await stream.transport.send_eof()
        await wait_closed(stream)
        async with connected_after(setup, node):
            pass


@asynccontextmanager
async def connected_after(setup: Setup, node: Node) -> AsyncIterator[None]:
    node.memory.remember_server(setup.hub.fingerprint)
    async with connected(setup, node):
        yield


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        stream = await setup.open_raw()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        await stream.send_all(SESSION_PREFACE)
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context).do_handshake()


async def test_the_65th_gets_in_when_a_place_comes_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_DEADLINE", 600.0)
    made: list[Places] = []

    class Seen(Places):
        def __init__(self, most: int, *, waiting: int) -> None:
            super().__init__(most, waiting=waiting)
            made.append(self)

    async def become(inside: int, at_the_door: int) -> None:
        with trio.fail_after(60):
            while (made[0].taken, made[0].waiting) != (inside, at_the_door):  # noqa: ASYNC110 - of sockets
                await trio.sleep(0.01)

    monkeypatch.setattr(listener, "Places", Seen)
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        unknown = [await setup.open_raw() for _ in range(64)]
        await become(64, 0)
        further = await setup.open_raw()
        await further.send_all(b"this is no preface")
        await become(64, 1)
        await unknown.pop().aclose()
        await wait_closed(further)
        await become(63, 0)
        async with connected_after(setup, node):
            await become(63, 0)
        for stream in unknown:
            await stream.aclose()


@pytest.mark.parametrize("at", ["nothing", "half a preface", "preface", "half a hello"])
async def test_a_stall_before_authentication_ends_by_the_deadline(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is shortened, because TLS over a socket does not run on a mock clock."""
    deadline = 0.2
    monkeypatch.setattr("reconciler.sync.listener.HANDSHAKE_DEADLINE", deadline)
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        stream: trio.abc.Stream | None = None
        while at == "half a hello" and stream is None:
            try:
                stream = (await setup.dial(node)).stream
                await stream.send_all(struct.pack(">I", 400) + b"x")
            except (LinkLost, trio.BrokenResourceError):
                # It ended while TLS was still being set up, which counts as well.
                stream, deadline = None, 2 * deadline
                monkeypatch.setattr("reconciler.sync.listener.HANDSHAKE_DEADLINE", deadline)
        if stream is None:
            stream = await setup.open_raw()
            await stream.send_all({"nothing": b"", "half a preface": b"TRUE", "preface": SESSION_PREFACE}[at])
        await wait_closed(stream)


async def test_a_callers_own_exception_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with running_hub(tmp_path):
            raise KeyError("mine")
