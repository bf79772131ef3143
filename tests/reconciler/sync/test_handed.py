"""A connection that a worker process has: both directions, its ends, and how it breaks."""

import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import contexts, tls
from agent.spread import LARGE
from agent.tlsstream import TLSStream
from reconciler.sync.handed import HandedStream
from reconciler.sync.shared_memory import Shared, new_buffer, place_of, shared_copy
from reconciler.sync.workers import Workers
from tests.connected import DEADLINE

MIB = 1024 * 1024


@dataclass
class Pair:
    """A connection: the primary's end, the agent's, and who carries it."""

    primary: HandedStream
    agent: TLSStream
    tcp: trio.SocketStream
    """The agent's, below TLS."""
    workers: Workers


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        got = await stream.receive_some(size - len(data))
        assert got
        data += got
    return bytes(data)


@asynccontextmanager
async def handed_over(tmp_path: Path) -> AsyncIterator[Pair]:
    server, client = tmp_path / "server", tmp_path / "client"
    tls.write_identity(server, "server", Ed25519PrivateKey.generate(), tls.PRIMARY_SUBJECT)
    key = Ed25519PrivateKey.generate()
    certificate = tls.to_der(tls.write_identity(client, "client", key, tls.agent_subject("web-1")))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            workers = Workers(server, lambda _nodes: 1, nursery.start_soon)
            workers.show([certificate])
            workers.want(1)
            while not workers.up:
                await workers.wait_change()
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            tcp = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            accepted = await listener.accept()
            await listener.aclose()
            primary = workers.hand_over(accepted)
            assert primary is not None
            agent = TLSStream(tcp, contexts.client_context(client), server_side=False)
            async with trio.open_nursery() as hands:
                hands.start_soon(primary.do_handshake)
                hands.start_soon(agent.do_handshake)
            assert primary.peer_certificate == certificate
            yield Pair(primary, agent, tcp, workers)
            await primary.aclose()
            await agent.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 64 * 1024, 64 * 1024 + 1, 3 * MIB + 7])
async def test_both_directions(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with handed_over(tmp_path) as pair, trio.open_nursery() as nursery:
        for near, far in ((pair.primary, pair.agent), (pair.agent, pair.primary)):
            nursery.start_soon(near.send_all, data)
            assert await receive_exactly(far, size) == data


async def test_many_small_messages_at_once(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair, trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(20_000):
                await pair.primary.send_all(b"%06d" % number)

        nursery.start_soon(send)
        wanted = b"".join(b"%06d" % number for number in range(20_000))
        assert await receive_exactly(pair.agent, len(wanted)) == wanted


@pytest.mark.parametrize(("start", "end"), [(0, 4 * MIB), (0, MIB), (MIB, 2 * MIB), (4097, MIB), (5, 6)])
async def test_what_is_in_shared_memory_is_sent_from_there(tmp_path: Path, start: int, end: int) -> None:
    content = os.urandom(4 * MIB)
    shared = shared_copy(content)
    assert isinstance(shared, memoryview)
    async with handed_over(tmp_path) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.primary.send_all, shared[start:end])
        assert await receive_exactly(pair.agent, end - start) == content[start:end]


AHEAD = 32
"""MiB that the kernel may hold for a connection, at both ends together, and more."""


@pytest.mark.parametrize("shared", [True, False])
async def test_a_large_piece_is_over_once_the_kernel_has_it(tmp_path: Path, shared: bool) -> None:
    """An agent that takes nothing holds up who sends to it, as by any socket."""
    async with handed_over(tmp_path) as pair, trio.open_nursery() as nursery:
        sent = 0

        async def send() -> None:
            nonlocal sent
            piece = new_buffer(MIB, shared=shared)
            for _ in range(3 * AHEAD):
                await pair.primary.send_all(piece)
                sent += 1

        nursery.start_soon(send)
        for taken in range(3 * AHEAD):
            assert sent <= taken + AHEAD
            await receive_exactly(pair.agent, MIB)


async def test_after_a_message_that_was_cut_off_nothing_is_sent(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair:
        with trio.move_on_after(DEADLINE) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.primary.send_all, bytes(AHEAD * MIB))
                await receive_exactly(pair.agent, MIB)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError, match="in part only"):
            await pair.primary.send_all(b"more")


async def test_the_agent_closes(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair:
        await pair.agent.send_all(b"the last")
        await pair.agent.aclose()
        assert await receive_exactly(pair.primary, 8) == b"the last"
        assert await pair.primary.receive_some() == b""


async def test_what_is_no_tls_breaks_it_with_openssls_reason(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair:
        await pair.tcp.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await pair.primary.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert caught.value.__cause__.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


async def test_a_connection_that_is_reset(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair:
        pair.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await pair.tcp.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await pair.primary.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await pair.primary.send_all(bytes(LARGE))


async def test_the_primary_closes_whatever_the_worker_does(tmp_path: Path) -> None:
    async with handed_over(tmp_path) as pair:
        (pid,) = pair.workers.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            await pair.primary.aclose()
            with trio.fail_after(DEADLINE):
                assert await pair.agent.receive_some() == b""
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_shared_memory_stays_as_long_as_it_is(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    buffer = new_buffer(LARGE, shared=True)
    place = place_of(buffer[10:])
    assert place is not None
    assert place.offset == 10
    with pytest.raises(PermissionError):
        os.ftruncate(place.fd, 0)
    del buffer
    assert len(os.listdir("/proc/self/fd")) == before


async def test_without_such_memory_frames_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError("no such call")

    monkeypatch.setattr(os, "memfd_create", refuse)
    content = os.urandom(2 * MIB)
    plain = new_buffer(2 * MIB, shared=True)
    assert not isinstance(plain.obj, Shared)
    plain[:] = content
    assert place_of(plain) is None
    async with handed_over(tmp_path) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.primary.send_all, plain)
        assert await receive_exactly(pair.agent, len(content)) == content
