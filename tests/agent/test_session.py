"""An agent's life against a real hub: reconnecting, several addresses, epochs, and how long it waits."""

import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent import tls
from agent.address import Address
from agent.backoff import FIRST, LONGEST, Backoff
from agent.errors import SettingsError
from agent.status import Board, read_status
from reconciler.sync.hub import AgentUnreachable
from tests.connected import DEADLINE, Node, Setup, make_node, make_task, running_hub, succeed, until
from tests.ports import free_port, free_ports


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=200))
def test_waits_double_up_to_the_longest_with_jitter(draws: list[float]) -> None:
    drawn = iter(draws)
    backoff = Backoff(draw=lambda: next(drawn))
    for attempt in range(len(draws)):
        step = min(LONGEST, FIRST * 2**attempt)
        assert step / 2 <= backoff.next() <= step


def test_waits_start_over_after_a_reset() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    assert [backoff.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 0.5


def test_a_fleet_spreads_out() -> None:
    waits = {Backoff().next() for _ in range(100)}
    assert len(waits) > 90


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("primary.example:9001", "primary.example", 9001),
        ("[::1]:1", "::1", 1),
        (" 10.0.0.1:65535 ", "10.0.0.1", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":9001",
        "host:0",
        "host:65536",
        "host:x",
        "::1:9001",
        "http://host:1",
        "a b:1",
        "[::1:1",
        "host:٣",
    ],
)
def test_broken_addresses(text: str) -> None:
    with pytest.raises(SettingsError, match=r"HOST:PORT"):
        Address.parse(text)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def problem_of(node: Node) -> str:
    status = read_status(node.memory.state_dir)
    assert status is not None
    return status.problem


async def test_an_agent_pairs_by_itself_where_it_never_did(tmp_path: Path, node: Node) -> None:
    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:
        nursery.start_soon(setup.agent(node).run)
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        assert len(setup.paired) == 1
        assert node.memory.server() == setup.hub.fingerprint
        nursery.cancel_scope.cancel()


async def test_an_agent_comes_back_after_every_loss(tmp_path: Path, node: Node) -> None:
    enrolled = [node.enrolment(paired=True)]
    async with running_hub(tmp_path, enrolled) as setup, trio.open_nursery() as nursery:
        node.memory.remember_server(setup.hub.fingerprint)
        nursery.start_soon(setup.agent(node).run)
        for number in range(5):
            assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
            report = await setup.hub.run_task("web-1", make_task(f"t{number}"), None)
            assert report.state == "SUCCESS"
            await setup.hub.update([])
            await until(setup, lambda: not setup.hub.connected())
            await setup.hub.update(enrolled)
        nursery.cancel_scope.cancel()


async def test_an_agent_waits_longer_each_time_and_says_why_once(
    tmp_path: Path, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    enough = trio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            enough.set()
        await trio.lowlevel.checkpoint()

    async with running_hub(tmp_path) as setup, trio.open_nursery() as nursery:
        nursery.start_soon(setup.agent(node, sleep=sleep).run)
        await enough.wait()
        nursery.cancel_scope.cancel()
    assert len([r for r in caplog.records if r.getMessage() == "not connected"]) == 1
    assert "TokenRefused" in problem_of(node)


async def test_the_next_address_is_tried_when_one_does_not_answer(tmp_path: Path, node: Node) -> None:
    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:
        closed = (Address("127.0.0.1", port) for port in free_ports(2))
        primaries = (*closed, setup.address)
        nursery.start_soon(setup.agent(node, primaries=primaries).run)
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        nursery.cancel_scope.cancel()


async def test_an_agent_moves_to_a_successor_with_the_same_key(tmp_path: Path, node: Node) -> None:
    key = Ed25519PrivateKey.generate()
    enrolled = [node.enrolment(paired=True)]
    async with (
        running_hub(tmp_path / "a", enrolled, key=key, epoch=1) as first,
        running_hub(tmp_path / "b", enrolled, key=key, epoch=2) as second,
        trio.open_nursery() as nursery,
    ):
        node.memory.remember_server(first.hub.fingerprint)
        nursery.start_soon(first.agent(node, primaries=(first.address, second.address)).run)
        assert await first.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        await first.hub.update([])
        assert await second.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        assert node.memory.epoch() == 2
        nursery.cancel_scope.cancel()


async def test_an_older_primary_is_refused_for_good(tmp_path: Path, node: Node) -> None:
    """Two reconcilers overlap: the one with the older epoch gets no agent any more, also after a restart."""
    node.memory.remember_epoch(5)
    tried = trio.Event()

    async def sleep(seconds: float) -> None:
        tried.set()
        await trio.sleep_forever()

    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)], epoch=4) as setup,
        trio.open_nursery() as nursery,
    ):
        node.memory.remember_server(setup.hub.fingerprint)
        nursery.start_soon(setup.agent(node, sleep=sleep).run)
        await tried.wait()
        assert setup.hub.connected() == frozenset()
        assert "succeeded by another (its epoch is 4, the newest seen is 5)" in problem_of(node)
        assert node.memory.epoch() == 5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", ["fingerprint", "certificate", "nobody there"])
async def test_why_there_is_no_connection_is_said_in_words(tmp_path: Path, node: Node, wrong: str) -> None:
    tried = trio.Event()

    async def sleep(seconds: float) -> None:
        tried.set()
        await trio.sleep_forever()

    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:
        node.memory.remember_server(setup.hub.fingerprint)  # it believes that it is paired
        primaries = (Address("127.0.0.1", free_port()),) if wrong == "nobody there" else ()
        pin = "ab" * 32 if wrong == "fingerprint" else None
        nursery.start_soon(setup.agent(node, primaries=primaries, pin=pin, sleep=sleep).run)
        await tried.wait()
        nursery.cancel_scope.cancel()
    expected = {
        "fingerprint": "join again with the new --pin",
        "certificate": "what `trueup node rotate-token web-1` prints at the primary",
        "nobody there": "Connection refused",
    }
    assert expected[wrong] in problem_of(node)


class CuttingProxy:
    """Passes bytes between agent and primary and cuts each connection after so many from the primary."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.budget = 0

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream(self.target.host, self.target.port)
        left = self.budget

        async def up() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await client.receive_some():
                    await server.send_all(data)
            await trio.aclose_forcefully(server)

        async with server, client, trio.open_nursery() as nursery:
            nursery.start_soon(up)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while left and (data := await server.receive_some(min(left, 65536))):
                    left -= len(data)
                    await client.send_all(data)
            nursery.cancel_scope.cancel()


async def test_a_connection_cut_anywhere_is_made_again(tmp_path: Path, node: Node) -> None:
    """Cut after 0, 40, 80 … bytes from the primary: in TLS, in the answer to the hello, in the session."""
    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)]) as setup,
        trio.open_nursery() as nursery,
    ):
        node.memory.remember_server(setup.hub.fingerprint)
        proxy = CuttingProxy(setup.address)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy.serve, listeners)
        address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])

        async def sleep(seconds: float) -> None:
            proxy.budget += 40
            await trio.lowlevel.checkpoint()

        nursery.start_soon(setup.agent(node, primaries=(address,), sleep=sleep).run)
        while True:
            if await setup.hub.wait_connected(["web-1"], DEADLINE) and await survives(setup):
                break
        assert proxy.budget > 1000
        nursery.cancel_scope.cancel()


async def survives(setup: Setup) -> bool:
    try:
        return (await setup.hub.run_task("web-1", make_task("t"), None)).state == "SUCCESS"
    except AgentUnreachable:
        return False


async def test_a_runner_is_called_with_the_task_as_sent(tmp_path: Path, node: Node) -> None:
    seen = []

    async with running_hub(tmp_path, [node.enrolment()]) as setup, trio.open_nursery() as nursery:

        async def runner(task: object, channel: object) -> object:
            seen.append(task)
            return await succeed(task, channel)  # type: ignore[arg-type]

        nursery.start_soon(setup.agent(node, runner).run)  # type: ignore[arg-type]
        await setup.hub.wait_connected(["web-1"], DEADLINE)
        await setup.hub.run_task("web-1", make_task("t1", target="/srv/x"), None)
        nursery.cancel_scope.cancel()
    assert seen == [make_task("t1", target="/srv/x")]


async def test_what_a_primary_says_is_no_order_to_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        await listening.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        board = Board(tmp_path, node="web-1", version="1")
        await board.disconnected("refused (TokenRefused): no\nMAINPID=1\x1b[2J")
        told = (await listening.recv(4096)).decode()
    assert told == "STATUS=not connected: refused (TokenRefused): no\\nMAINPID=1\\x1b[2J"


async def test_a_disk_that_is_full_for_a_while_does_not_end_the_agent(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tls.write_private
    full = True
    tried = trio.Event()

    def write_private(path: Path, content: bytes) -> None:
        if full and path.name in ("epoch", "server.fp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    async def sleep(seconds: float) -> None:
        tried.set()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(tls, "write_private", write_private)
    async with (
        running_hub(tmp_path, [node.enrolment()], epoch=5) as setup,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(setup.agent(node, sleep=sleep).run)
        await tried.wait()
        assert "No space left on device" in problem_of(node)
        full = False
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        assert node.memory.epoch() == 5
        nursery.cancel_scope.cancel()


async def test_a_primary_cannot_fill_the_log_with_one_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board(tmp_path, node="web-1", version="1")
    logger = logging.getLogger("trueup.agent")
    logger.addHandler(caplog.handler)
    task = msgspec.structs.replace(make_task("t" * 10**6), project="p" * 10**6, observe=False)
    try:
        with caplog.at_level(logging.INFO, "trueup.agent"):
            await board.task_started(task)
            await board.task_ended(task, await succeed(task, None))  # type: ignore[arg-type]
    finally:
        logger.removeHandler(caplog.handler)
    assert all(len(str(record.__dict__)) < 5000 for record in caplog.records)
    status = read_status(tmp_path)
    assert status is not None
    assert len(str(status)) < 5000
    assert status.last_sync
