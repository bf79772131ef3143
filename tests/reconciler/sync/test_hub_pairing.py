"""Who pairs: tokens, keys and pins against a real listener, with somebody in the middle."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import contexts, tls
from agent.address import Address
from agent.errors import ConnectionRefused
from agent.node_token import NodeToken
from reconciler.sync.enrolment import TOKEN_LIFETIME
from tests.certificates import odd_certificate, store_identity
from tests.connected import Node, Setup, connected, make_node, running_hub, until

pytestmark = pytest.mark.usefixtures("no_traceback")


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_node_pairs_and_connects(tmp_path: Path, pinned: bool) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment()]) as setup:
        assert not setup.hub.is_paired("web-1")
        assert await setup.pair(node, pin="" if pinned else None) == setup.hub.fingerprint
        assert setup.paired == [("web-1", node.certificate, not pinned)]
        assert setup.hub.is_paired("web-1")
        node.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, node):
            assert setup.hub.connected() == {"web-1"}
        await until(setup, lambda: setup.hub.connected() == frozenset())


async def test_pairing_is_recorded_before_the_agent_hears_of_it(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    recording, recorded, heard = trio.Event(), trio.Event(), trio.Event()

    async def record(*_: object) -> None:
        recording.set()
        await recorded.wait()

    async with running_hub(tmp_path, [node.enrolment()], on_paired=record) as setup:

        async def pairing() -> None:
            await setup.pair(node)
            heard.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pairing)
            await recording.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not heard.is_set()
            assert not setup.hub.is_paired("web-1")
            recorded.set()
        assert setup.hub.is_paired("web-1")


async def test_a_pairing_that_cannot_be_recorded_is_refused_and_can_be_tried_again(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    failures = ["the remote is gone"]

    async def record(*_: object) -> None:
        if failures:
            raise OSError(failures.pop())

    async with running_hub(tmp_path, [node.enrolment()], on_paired=record) as setup:
        with pytest.raises(ConnectionRefused, match="NotRecorded"):
            await setup.pair(node)
        assert not setup.hub.is_paired("web-1")
        await setup.pair(node)
        assert setup.hub.is_paired("web-1")


async def test_wrong_tokens_and_unknown_nodes_hear_the_same(tmp_path: Path) -> None:
    node, stranger = make_node(tmp_path), make_node(tmp_path, "web-9")
    async with running_hub(tmp_path, [node.enrolment()]) as setup:
        with pytest.raises(ConnectionRefused, match="TokenRefused") as wrong:
            await setup.pair(node, token=NodeToken.generate())
        with pytest.raises(ConnectionRefused, match="TokenRefused") as unknown:
            await setup.pair(stranger)
        assert str(wrong.value) == str(unknown.value).replace("web-9", "web-1")
        assert setup.paired == []


async def test_another_nodes_token_does_not_pair(tmp_path: Path) -> None:
    one, two = make_node(tmp_path), make_node(tmp_path, "web-2")
    async with running_hub(tmp_path, [one.enrolment(), two.enrolment()]) as setup:
        with pytest.raises(ConnectionRefused, match="TokenRefused"):
            await setup.pair(one, token=two.token)


async def test_a_pinned_node_pairs_only_with_that_key(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    pin = tls.spki_fingerprint(node.memory.identity("web-1"))
    async with running_hub(tmp_path, [node.enrolment(pin="0" * 64)]) as setup:
        with pytest.raises(ConnectionRefused, match="FingerprintRefused"):
            await setup.pair(node)
        await setup.hub.update([node.enrolment(pin=pin)])
        await setup.pair(node)


async def test_a_second_agent_needs_repair(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    clone = make_node(tmp_path, directory="clone")
    clone.token = node.token
    async with running_hub(tmp_path, [node.enrolment()]) as setup:
        await setup.pair(node)
        with pytest.raises(ConnectionRefused, match=r"AlreadyPaired.*trueup node repair web-1"):
            await setup.pair(clone)
        await setup.pair(node)  # the same agent again, whose first answer was lost
        assert len(setup.paired) == 1
        await setup.hub.update([node.enrolment()])
        await setup.pair(clone)
        assert [certificate for _, certificate, _ in setup.paired] == [node.certificate, clone.certificate]


async def test_of_many_agents_with_one_token_one_wins(tmp_path: Path) -> None:
    """A thousand attempts, forty at a time; forty keys."""
    attempts = 1_000
    node = make_node(tmp_path)
    won: list[Node] = []
    lost = 0
    async with running_hub(tmp_path, [node.enrolment()]) as setup:

        async def attempt(number: int) -> None:
            nonlocal lost
            rival = Node("web-1", node.token, make_node(tmp_path, directory=f"rival-{number % 40}").memory)
            try:
                await setup.pair(rival)
                won.append(rival)
            except ConnectionRefused as error:
                assert "AlreadyPaired" in str(error)
                lost += 1

        async def row(numbers: range) -> None:
            for number in numbers:
                await attempt(number)

        async with trio.open_nursery() as nursery:
            for first in range(40):
                nursery.start_soon(row, range(first, attempts, 40))
        assert len(setup.paired) == 1
        assert {winner.certificate for winner in won} == {setup.paired[0][1]}
        assert len(won) + lost == attempts


@pytest.mark.parametrize(("age", "accepted"), [(TOKEN_LIFETIME - 60, True), (TOKEN_LIFETIME + 60, False)])
async def test_a_join_token_expires_unused(tmp_path: Path, age: float, accepted: bool) -> None:
    node = make_node(tmp_path)
    made_at = datetime.datetime.now().timestamp() - age
    async with running_hub(tmp_path, [node.enrolment(made_at=made_at)]) as setup:
        if accepted:
            await setup.pair(node)
            return
        with pytest.raises(ConnectionRefused, match=r"TokenExpired.*rotate-token web-1"):
            await setup.pair(node)


@pytest.mark.parametrize("oddity", [{"ca": True}, {"identifiers": False}])
async def test_a_certificate_that_could_stand_for_others_does_not_pair(
    tmp_path: Path, oddity: dict[str, bool]
) -> None:
    node = make_node(tmp_path)
    key = Ed25519PrivateKey.generate()
    store_identity(node.memory.tls_dir, key, odd_certificate("web-1", key=key, **oddity))  # type: ignore[arg-type]
    async with running_hub(tmp_path, [node.enrolment()]) as setup:
        with pytest.raises(ConnectionRefused, match="CertificateRefused"):
            await setup.pair(node)


async def test_another_master_key_is_refused_by_the_agent(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment()]) as setup:
        with pytest.raises(ConnectionRefused, match=r"not the primary that was pinned.*new --pin"):
            await setup.pair(node, pin="ab" * 32)


@asynccontextmanager
async def man_in_the_middle(setup: Setup, tmp_path: Path) -> AsyncIterator[Address]:
    """Ends TLS with a key of its own and passes on, decrypted, whatever both sides say."""
    directory = tmp_path / "mallory"
    tls.write_identity(directory, "server", Ed25519PrivateKey.generate(), tls.PRIMARY_SUBJECT)
    context = contexts.pairing_server_context(directory)

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await trio.aclose_forcefully(sink)

    async def serve(transport: trio.SocketStream) -> None:
        preface = await transport.receive_some(8)
        victim = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
        try:
            await victim.do_handshake()
        except trio.BrokenResourceError:
            return
        onward = await setup.dial(None, bytes(preface))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, victim, onward.stream)
            nursery.start_soon(pump, onward.stream, victim)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield Address("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("pin", "reason"), [("", "not the primary that was pinned"), (None, "TokenRefused")])
async def test_a_man_in_the_middle_of_pairing(tmp_path: Path, pin: str | None, reason: str) -> None:
    """With a pin the agent notices; without one the primary does, by the fingerprint that was signed."""
    node = make_node(tmp_path)
    async with (
        running_hub(tmp_path, [node.enrolment()]) as setup,
        man_in_the_middle(setup, tmp_path) as address,
    ):
        with pytest.raises(ConnectionRefused, match=reason):
            await setup.pair(node, pin=pin, address=address)
        assert setup.paired == []
        assert not setup.hub.is_paired("web-1")


async def test_the_hubs_files(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as setup:
        directory = tmp_path / "hub-tls"
        assert sorted(path.name for path in directory.iterdir()) == ["server.crt", "server.key"]
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
        stored = tls.load_identity(directory, "server")
        assert stored is not None
        assert tls.spki_fingerprint(stored) == setup.hub.fingerprint
