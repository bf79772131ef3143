"""What strangers may try on `/webhook` and `/deploy`: each attempt has one clear answer, never a 500."""

import json
from pathlib import Path

import pytest
import trio

from reconciler.settings_values import Address
from reconciler.web.app import PUBLIC_LIMITS
from reconciler.web.server import HttpServer
from reconciler.web.sockets import address_of, listen_on
from tests.canaries import canary
from tests.delivering import Place, delivering
from tests.github_deliveries import headers_of, payload, pushed, signature

Headers = list[tuple[bytes, bytes]]
NAME = b"X-Hub-Signature-256"
BODY = b"{}"


def place(tmp_path: Path, **environment: str) -> Place:
    return Place.make(tmp_path, **environment)


@pytest.mark.parametrize("path", ["/webhook", "/deploy"])
async def test_signatures_that_are_none(tmp_path: Path, path: str) -> None:
    secret = canary("webhook")
    right = b"sha256=" + signature(BODY, secret).encode()
    wrong: list[Headers] = [
        [],
        [(NAME, b"")],
        [(NAME, b"sha256=")],
        [(NAME, b"sha1=" + right[7:47])],
        [(NAME, right[7:])],
        [(NAME, right[:-1])],
        [(NAME, right + b"0")],
        [(NAME, right.upper())],
        [(NAME, b"sha256=" + b"0" * 64)],
        [(NAME, b"sha256=" + "é".encode() * 32)],
        [(NAME, b"sha256=" + b"\xff" * 64)],
        [(NAME, b"\x00" * 71)],
        [(NAME, right), (NAME, right)],
        [(NAME, b"sha256=" + b"0" * 64), (NAME, right)],
        [(NAME, right + b", " + right)],
        [(NAME, right), (b"x-infisical-signature", b"t=1;" + b"0" * 64)] if path == "/webhook" else [],
        [(b"X-Hub-Signature", b"sha1=" + b"0" * 40)],
        [(NAME, b"sha256=" + signature(BODY, "").encode())],
        [(NAME, b"sha256=" + signature(BODY + b" ", secret).encode())],
    ]
    async with delivering(place(tmp_path, WEBHOOK_SECRET=secret), passes=False) as it:
        for headers in wrong:
            answer = await it.client.post(path, content=BODY, headers=headers)
            assert answer.status_code == 401, (headers, answer.text)
            assert answer.json()["success"] is False
        assert it.primary.journal.deliveries.newest() == ()


@pytest.mark.parametrize("path", ["/webhook", "/deploy"])
async def test_without_a_secret_nobody_gets_in(tmp_path: Path, path: str) -> None:
    """Also with the signature that an empty secret would make."""
    async with delivering(place(tmp_path), passes=False) as it:
        for headers in ({}, headers_of(BODY, "", "push"), {"x-infisical-signature": "t=1;" + "0" * 64}):
            assert (await it.client.post(path, content=BODY, headers=headers)).status_code == 404


@pytest.mark.parametrize("path", ["/webhook", "/deploy"])
async def test_bodies_that_are_none(tmp_path: Path, path: str) -> None:
    """All of them are signed."""
    secret = canary("webhook")
    bodies = [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        payload("push") + b" trailing",
        b'{"repository": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b"[" * 10_000,
        b'{"ref": 1' + b"0" * 5000 + b"}",
        b'{"ref": 1e999}',
        b'{"ref": {"a": NaN}}',
    ]
    async with delivering(place(tmp_path, WEBHOOK_SECRET=secret), passes=False) as it:
        for body in bodies:
            if path == "/deploy":
                body = body[:60_000]
            answer = await it.client.post(path, content=body, headers=headers_of(body, secret, "push"))
            assert answer.status_code == 400, (body[:40], answer.text)
            assert answer.json()["message"]
        packed = headers_of(BODY, secret, "push") | {"Content-Encoding": "gzip"}
        assert (await it.client.post(path, content=BODY, headers=packed)).status_code == 415
        large = headers_of(BODY, secret, "push") | {"Content-Length": str(26 * 1024 * 1024)}
        assert (await it.client.post(path, content=BODY, headers=large)).status_code == 413
        assert it.primary.journal.deliveries.newest() == ()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HT",
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=00\r\nContent-Length: 9\r\n\r\n{",
    ],
)
async def test_500_who_are_slow_keep_nobody_from_health(tmp_path: Path, sent: bytes) -> None:
    stop = trio.Event()
    there = place(tmp_path, WEBHOOK_SECRET=canary("webhook"))
    async with delivering(there, passes=False) as it, trio.open_nursery() as nursery:
        listeners = await listen_on(Address("127.0.0.1", 0))
        address = address_of(listeners[0])
        nursery.start_soon(HttpServer(it.app, listeners, PUBLIC_LIMITS).run, stop)
        slow = [await trio.open_tcp_stream("127.0.0.1", address.port) for _ in range(500)]
        for stream in slow:
            if sent:
                await stream.send_all(sent)
        asking = await trio.open_tcp_stream("127.0.0.1", address.port)
        await asking.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        with trio.fail_after(120):
            async for data in asking:
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "ok"
        for stream in (*slow, asking):
            await trio.aclose_forcefully(stream)
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + 60


async def test_a_push_is_taken_among_all_that(tmp_path: Path) -> None:
    secret = canary("webhook")
    async with delivering(place(tmp_path, WEBHOOK_SECRET=secret), passes=False) as it:
        assert (await it.deliver(pushed("org/app", secret))).status_code == 202
