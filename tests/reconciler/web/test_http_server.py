"""HTTP over real sockets: every request and connection is bounded, and none of them hurts another."""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.errors import SettingsError, TrueupError
from reconciler.settings_values import Address
from reconciler.web import server as server_module
from reconciler.web.answers import answer, http_error, trueup_error
from reconciler.web.bodies import Bodies
from reconciler.web.guard import Limits
from reconciler.web.server import IDLE, SEND_DEADLINE, HttpServer
from reconciler.web.sockets import address_of, listen_locally, listen_on
from tests.canaries import canary

DEADLINE = 60
"""Seconds after which a test that hangs fails."""

LARGE = 64 * 1024 * 1024


class Site:
    """An app with a body limit of 1000 bytes, and requests that wait, fail and answer with much."""

    def __init__(self) -> None:
        self.bodies = Bodies(most=1000, together=1500)
        self.began = trio.Event()
        self.release = trio.Event()
        self.app = Starlette(
            routes=[
                Route("/quick", self.quick),
                Route("/slow", self.slow),
                Route("/large", self.large),
                Route("/broken", self.broken),
                Route("/body", self.body, methods=["POST"]),
            ],
            exception_handlers={HTTPException: http_error, TrueupError: trueup_error},
        )

    async def quick(self, _request: Request) -> JSONResponse:
        return answer({"quick": True})

    async def slow(self, _request: Request) -> JSONResponse:
        self.began.set()
        await self.release.wait()
        return answer({})

    async def large(self, _request: Request) -> Response:
        return Response(b"x" * LARGE)

    async def broken(self, _request: Request) -> JSONResponse:
        raise ValueError(canary("error-of-ours"))

    async def body(self, request: Request) -> JSONResponse:
        async with self.bodies.read(request) as body:
            return answer({"size": len(body)})


@asynccontextmanager
async def running(
    site: Site, *, deadline: float = DEADLINE, max_requests: int = 10
) -> AsyncIterator[tuple[str, int]]:
    listeners = await listen_on(Address("127.0.0.1", 0))
    address = address_of(listeners[0])
    stop = trio.Event()
    with trio.fail_after(2 * DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HttpServer(site.app, listeners, Limits(deadline, max_requests)).run, stop)
            yield str(address.host), address.port
            stop.set()


def client(address: tuple[str, int]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False, timeout=DEADLINE)


async def read_all(stream: trio.SocketStream) -> bytes:
    said = b""
    try:
        async for data in stream:
            said += data
    except trio.BrokenResourceError:
        pass
    return said


async def test_answers_and_errors_are_json() -> None:
    async with running(Site()) as address, client(address) as asking:
        assert (await asking.get("/quick")).json() == {"quick": True}
        missing = await asking.get("/nothing")
        assert missing.json() == {"success": False, "message": "Not Found", "reason": "NotFound"}
        assert missing.status_code == 404
        wrong = await asking.post("/quick")
        assert (wrong.status_code, wrong.json()["reason"]) == (405, "MethodNotAllowed")
        assert "server" not in missing.headers


async def test_an_error_of_ours_says_nothing_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Site()) as address, client(address) as asking:
        broken = await asking.get("/broken")
        assert broken.status_code == 500
        assert (await asking.get("/quick")).status_code == 200
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("no answer to /broken: internal error: ValueError at test_http_server.py:")


async def settle() -> None:
    """Until every task waits for something that only a test can bring about."""
    await trio.testing.wait_all_tasks_blocked(0.1)


async def test_a_request_has_a_deadline(mock_clock: trio.testing.MockClock) -> None:
    site = Site()
    async with running(site, deadline=5) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await site.began.wait()
        mock_clock.jump(6)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")
        await stream.aclose()


@pytest.mark.parametrize("sent", [b"", b"GET /quick HTTP/1.1\r\nHo"])
async def test_a_head_that_does_not_come(mock_clock: trio.testing.MockClock, sent: bytes) -> None:
    async with running(Site()) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(sent)
        await settle()
        mock_clock.jump(IDLE + 1)
        assert await read_all(stream) == b""
        await stream.aclose()


async def test_a_body_that_does_not_come(mock_clock: trio.testing.MockClock) -> None:
    async with running(Site(), deadline=5) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123")
        await settle()
        mock_clock.jump(6)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")
        await stream.aclose()


async def test_a_client_that_does_not_read_holds_nothing_up(mock_clock: trio.testing.MockClock) -> None:
    async with running(Site()) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await settle()
        mock_clock.jump(SEND_DEADLINE + 1)
        assert len(await read_all(stream)) < LARGE
        await stream.aclose()


async def test_many_who_say_nothing_keep_nobody_out(mock_clock: trio.testing.MockClock) -> None:
    async with running(Site()) as address:
        silent = [await trio.open_tcp_stream(*address) for _ in range(300)]
        async with client(address) as asking:
            assert (await asking.get("/quick")).status_code == 200
        for stream in silent:
            await stream.aclose()


async def test_more_connections_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    async with running(Site()) as address:
        first, second = [await trio.open_tcp_stream(*address) for _ in range(2)]
        await settle()
        third = await trio.open_tcp_stream(*address)
        assert await read_all(third) == b""
        await first.aclose()
        await settle()
        async with client(address) as asking:
            assert (await asking.get("/quick")).status_code == 200
        for stream in (second, third):
            await stream.aclose()


async def test_more_requests_than_there_may_be() -> None:
    site = Site()
    async with running(site, max_requests=1) as address, client(address) as asking:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await site.began.wait()
        assert (await asking.get("/quick")).status_code == 503
        site.release.set()
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()
        assert (await asking.get("/quick")).status_code == 200


async def test_bodies_have_limits(mock_clock: trio.testing.MockClock) -> None:
    """The clock stands still: that the server ends all the same shows that nothing of it is left over."""
    site = Site()
    async with running(site) as address, client(address) as asking:
        assert (await asking.post("/body", content=b"x" * 1000)).json() == {"size": 1000}
        assert (await asking.post("/body", content=b"x" * 1001)).status_code == 413
        assert (await asking.post("/body", content=chunks(b"x" * 400, 3))).status_code == 413
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999)
        await settle()
        assert (await asking.post("/body", content=b"x" * 600)).status_code == 503
        assert (await asking.post("/body", content=b"x" * 501)).json() == {"size": 501}
        await stream.send_all(b"x")
        await stream.send_eof()
        assert (await read_all(stream)).endswith(b'{"size":1000}')
        await stream.aclose()


async def test_a_refusal_arrives_while_the_body_is_still_sent(mock_clock: trio.testing.MockClock) -> None:
    async with running(Site()) as address:
        stream = await trio.open_tcp_stream(*address)
        size = 8 * 1024 * 1024
        await stream.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        await stream.send_all(b"x" * size)
        await stream.send_eof()
        assert (await read_all(stream)).startswith(b"HTTP/1.1 413 ")
        await stream.aclose()


async def chunks(piece: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 100_000, b"431"),
        (
            b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            b"403",
        ),
    ],
)
async def test_what_is_no_plain_request_is_turned_away(sent: bytes, status: bytes) -> None:
    async with running(Site()) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(sent)
        await stream.send_eof()
        assert (await read_all(stream)).startswith(b"HTTP/1.1 " + status)
        await stream.aclose()
        async with client(address) as asking:
            assert (await asking.get("/quick")).status_code == 200


async def test_an_answer_under_way_is_finished_at_the_end() -> None:
    site = Site()
    listeners = await listen_on(Address("127.0.0.1", 0))
    address, stop = address_of(listeners[0]), trio.Event()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HttpServer(site.app, listeners, Limits(DEADLINE, 10)).run, stop)
            stream = await trio.open_tcp_stream(str(address.host), address.port)
            await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await site.began.wait()
            stop.set()
            await settle()
            site.release.set()
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")
            await stream.aclose()


async def test_the_socket_is_its_owners_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sock"
    modes: list[int] = []
    listen = socket.socket.listen

    def looking(self: socket.socket, *backlog: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        listen(self, *backlog)

    monkeypatch.setattr(socket.socket, "listen", looking)
    old = os.umask(0)
    try:
        listener = listen_locally(str(path))
    finally:
        os.umask(old)
    assert modes == [0o600]
    await listener.aclose()
    # What is left of one that was killed is replaced.
    again = listen_locally(str(path))
    await (await trio.open_unix_socket(str(path))).aclose()
    await again.aclose()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SettingsError, match="is in the way and is no socket"):
        listen_locally(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(SettingsError, match="cannot listen there: No such file or directory"):
        listen_locally(str(tmp_path / "no" / "directory"))
