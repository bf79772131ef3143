"""Probes against real servers that answer well, badly, or not at all."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reconciler.deploy.context import Identity, RunContext
from reconciler.deploy.health import (
    CommandPlace,
    judge_command,
    judge_status,
    probe_of,
    probe_tcp,
    try_once,
    wait_healthy,
)
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.spec.model import Health
from tests.canaries import canary
from tests.certificates import odd_certificate
from tests.httptarget import CLOSES, ENDLESS, SILENT, http_target
from tests.reconciler.deploy.processes import wait_gone

LONG = 60.0
"""Seconds that only a hang makes a test wait."""


async def one_try(health: Health, deadline: float = LONG) -> str | None:
    return await try_once(probe_of(health), deadline)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (200, None),
        (204, None),
        (302, None),
        (399, None),
        (400, "HTTP 400"),
        (503, "HTTP 503"),
        (ENDLESS, None),
        (CLOSES, "Server disconnected without sending a response."),
    ],
)
async def test_an_answer_over_http(answer: int, found: str | None) -> None:
    async with http_target(answer) as target:
        assert await one_try(Health(http=target.url)) == found
        # Asked once: a redirect is an answer, and is not followed to wherever it leads.
        assert target.asked == ["GET /health HTTP/1.1"]


async def test_a_server_that_says_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.2
    async with http_target(SILENT) as target:
        assert await one_try(Health(http=target.url), 10.0) == "no answer within 10s"


async def test_nothing_listens() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    assert await one_try(Health(tcp=f"127.0.0.1:{port}")) is None
    await listener.aclose()
    assert await one_try(Health(tcp=f"127.0.0.1:{port}")) == "connection refused"
    assert await one_try(Health(http=f"http://127.0.0.1:{port}/")) == "connection refused"
    assert await probe_tcp("a..b:1") is not None


async def test_tls_is_verified(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(private + ssl.DER_cert_to_PEM_cert(odd_certificate("web", key=key)).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        found = await one_try(Health(http=f"https://127.0.0.1:{port}/"))
        nursery.cancel_scope.cancel()
    assert found is not None
    assert found.startswith("its certificate is not accepted: ")


async def test_it_is_tried_until_it_is_well() -> None:
    async with http_target(503, CLOSES, 200) as target:
        health = Health(http=target.url, timeout=LONG, interval=0.001)
        assert await wait_healthy(probe_of(health), health) is None
        assert len(target.asked) == 3


async def test_the_last_reason_is_told_when_the_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    told = iter(["connection refused", *["HTTP 503"] * 100])

    async def probe() -> str | None:
        return next(told)

    health = Health(http="http://x/", timeout=10.0, interval=3.0)
    assert await wait_healthy(probe, health) == "HTTP 503"
    assert trio.current_time() == 10.0


async def test_a_probe_that_hangs_is_cut_and_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    tries = 0

    async def probe() -> str | None:
        nonlocal tries
        tries += 1
        if tries < 3:
            await trio.sleep_forever()
        return None

    assert await wait_healthy(probe, Health(http="http://x/", timeout=60.0)) is None
    assert tries == 3
    tries = -100
    assert await wait_healthy(probe, Health(http="http://x/", timeout=5.0)) == "no answer"


def place(tmp_path: Path, **variables: str) -> CommandPlace:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    secrets = {name: Secret(value) for name, value in variables.items()}
    return CommandPlace(
        checkout=checkout,
        variables=secrets,
        identity=Identity(environment="staging", service="web"),
        masker=Masker(secrets.values()),
        context=RunContext({"PATH": "/usr/bin:/bin"}, tmp_path / "homes"),
    )


async def test_a_command_runs_in_the_checkout_with_what_is_declared(tmp_path: Path) -> None:
    where = place(tmp_path, TOKEN=canary("health-token"))
    (where.checkout / "check").write_text('echo "$TRUEUP_SERVICE" "$TOKEN"\ntest -e well || exit 3\n')
    health = Health(command=("sh", "check"))
    found = await try_once(probe_of(health, where), LONG)
    assert found == "the command ended with exit code 3: web ***"
    (where.checkout / "well").touch()
    assert await try_once(probe_of(health, where), LONG) is None
    missing = await try_once(probe_of(Health(command=("no-such-command",)), where), LONG)
    assert missing == "cannot start no-such-command: No such file or directory"


async def test_a_command_that_is_cut_leaves_no_process(tmp_path: Path) -> None:
    where = place(tmp_path)
    began = trio.Event()
    pids: list[int] = []

    def heard(line: str) -> None:
        pids.append(int(line))
        began.set()

    where = CommandPlace(where.checkout, {}, where.identity, where.masker, where.context, heard)
    probe = probe_of(Health(command=("sh", "-c", "echo $$; exec sleep 600")), where)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_once, probe, LONG)
        await began.wait()
        nursery.cancel_scope.cancel()
    assert await wait_gone(pids[0])


def test_judgement() -> None:
    assert [judge_status(code) for code in (199, 200, 399, 400)] == ["HTTP 199", None, None, "HTTP 400"]
    assert judge_command(0, "noise") is None
    assert judge_command(-9, "") == "the command was ended by signal 9"
