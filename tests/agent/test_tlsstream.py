"""TLS streams that encrypt in threads while several send: every byte in its place, nothing after a cut."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import contexts, tls
from agent.spread import LARGE, Result, Spread
from agent.tlsstream import TLSStream

PIECES = 24


class Counting(Spread):
    """`turns`: how often a thread was used."""

    turns = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        done = await super().run(work)
        self.turns += 1
        return done


def server_context(directory: Path) -> ssl.SSLContext:
    tls.write_identity(directory, "server", Ed25519PrivateKey.generate(), tls.PRIMARY_SUBJECT)
    return contexts.pairing_server_context(directory)


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    async with AsyncExitStack() as opened:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            near = await opened.enter_async_context(
                await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
            )
            far = await opened.enter_async_context(await listener.accept())
        yield near, far


@asynccontextmanager
async def memory_pair() -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    yield trio.testing.lockstep_stream_pair()


async def connect(
    context: ssl.SSLContext, pair: tuple[trio.abc.Stream, trio.abc.Stream], spread: Spread
) -> tuple[TLSStream, TLSStream]:
    """A primary's and an agent's end that have shaken hands."""
    server = TLSStream(pair[0], context, server_side=True, spread=spread)
    client = TLSStream(pair[1], contexts.client_context(None), server_side=False, spread=Spread(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    return server, client


@contextmanager
def sending(spread: Spread, others: int) -> Iterator[None]:
    """While so many others send large pieces."""
    with ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(spread.sending())
        yield


def pieces_of(number: int) -> Iterable[bytes]:
    """Large ones and small ones in turns, each of another content and size."""
    for at in range(PIECES):
        size = 100 + at if at % 3 == 2 else LARGE + 1000 * at + number
        yield bytes([number, at]) * (size // 2)


async def read_all(stream: TLSStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        got = await stream.receive_some()
        assert got, "the stream ended early"
        data += got
    return bytes(data)


@pytest.mark.parametrize("over", [tcp_pair, memory_pair], ids=["tcp", "memory"])
async def test_a_crowd_gets_every_byte_in_its_place_while_it_speaks(tmp_path: Path, over: object) -> None:
    """Both ends send all the time, so that receiving meets the thread of the same connection."""
    spread = Counting(2)
    context = server_context(tmp_path)
    ended = 0

    async def converse(number: int) -> None:
        nonlocal ended
        async with over() as pair:  # type: ignore[operator]
            server, client = await connect(context, pair, spread)
            expected = b"".join(pieces_of(number))

            async def tell(stream: TLSStream) -> None:
                for piece in pieces_of(number):
                    await stream.send_all(piece)

            async def hear(stream: TLSStream) -> None:
                nonlocal ended
                assert await read_all(stream, len(expected)) == expected
                ended += 1

            async with trio.open_nursery() as nursery:
                for stream in (server, client):
                    nursery.start_soon(tell, stream)
                    nursery.start_soon(hear, stream)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(converse, number)
    assert ended == 10
    assert spread.turns > 0


async def test_one_alone_needs_no_thread(tmp_path: Path) -> None:
    spread = Counting(2)
    async with tcp_pair() as pair:
        server, client = await connect(server_context(tmp_path), pair, spread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, bytes(4 * LARGE))
            assert await read_all(client, 4 * LARGE) == bytes(4 * LARGE)
    assert spread.turns == 0


async def test_small_pieces_need_no_thread(tmp_path: Path) -> None:
    spread = Counting(2)
    async with tcp_pair() as pair:
        server, client = await connect(server_context(tmp_path), pair, spread)
        with spread.sending(), spread.sending():
            await server.send_all(bytes(LARGE - 1))
            assert await read_all(client, LARGE - 1) == bytes(LARGE - 1)
    assert spread.turns == 0


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "in a thread"])
async def test_nothing_follows_a_send_that_was_cancelled(tmp_path: Path, others: int) -> None:
    """The peer would take what follows for an attack on the connection, or worse, for what was cancelled."""
    spread = Counting(2)
    near, far = trio.testing.lockstep_stream_pair()
    server, client = await connect(server_context(tmp_path), (near, far), spread)
    with sending(spread, others):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, bytes(LARGE))
            await trio.testing.wait_all_tasks_blocked()  # nobody takes what was encrypted
            nursery.cancel_scope.cancel()
        assert spread.turns == (1 if others else 0)
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"more")
    await client.aclose()


async def test_a_send_that_was_cancelled_before_its_turn_breaks_nothing(tmp_path: Path) -> None:
    spread = Counting(2)
    async with tcp_pair() as pair:
        server, client = await connect(server_context(tmp_path), pair, spread)
        with sending(spread, 2):
            async with trio.open_nursery() as nursery:
                spread.limiter.total_tokens = 0
                nursery.start_soon(server.send_all, bytes(LARGE))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert spread.turns == 0
        await server.send_all(b"more")
        assert await client.receive_some() == b"more"


async def test_a_broken_connection_is_told_from_a_thread_too(tmp_path: Path) -> None:
    spread = Counting(2)
    async with tcp_pair() as pair:
        server, client = await connect(server_context(tmp_path), pair, spread)
        await client.aclose()
        with sending(spread, 2), pytest.raises(trio.BrokenResourceError):
            while True:
                await server.send_all(bytes(LARGE))
    assert spread.turns > 0
