"""How soon a revoked node is off, by a clock that stands still but where the test moves it."""

from collections.abc import Callable, Coroutine
from pathlib import Path

import trio
import trio.testing

from agent import tls
from agent.link import BULK_TIMING, Link
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import PROTOCOL_VERSIONS, Hello, HelloAck
from reconciler.sync.hub import Hub
from reconciler.sync.listener import Caller
from tests.connected import DEADLINE, Node, make_node, running_hub


class Deaf(trio.abc.Stream):
    """A connection to somebody who reads nothing: not even a close in good order gets through."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.deaf = False
        self.closed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.deaf:
            await trio.sleep_forever()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.closed.set()
            await trio.aclose_forcefully(self._inner)


Start = Callable[[Callable[[], Coroutine[object, object, None]]], object]


async def open_connection(hub: Hub, node: Node, start: Start, session: bytes = b"") -> tuple[Deaf, bytes]:
    """One of a node's connections, from its hello on, as the listener hands it over."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = Deaf(ours)
    key = tls.load_identity(node.memory.tls_dir, "client")
    assert key is not None
    statement = tls.hello_statement(hub.fingerprint, tls.spki_fingerprint(key), node.name, session)
    agent = Link(theirs, Connection(Role.AGENT, Phase.HELLO), timing=BULK_TIMING)
    hello = Hello(
        node=node.name,
        protocols=PROTOCOL_VERSIONS,
        agent_version="test",
        session=session,
        signature=node.token.sign(statement),
    )
    await agent.write(hello)
    link = Link(stream, Connection(Role.PRIMARY, Phase.HELLO), timing=BULK_TIMING)
    message = await link.read()
    proceed = await hub._reception.judge(
        Caller(link, message, node.certificate, "somewhere", trio.lowlevel.checkpoint)
    )
    answer = await agent.read()
    assert isinstance(answer, HelloAck)
    assert answer.accepted, answer
    assert proceed is not None

    async def listen() -> None:
        assert proceed is not None
        await proceed()
        await trio.aclose_forcefully(stream)

    start(listen)
    return stream, answer.session


async def test_a_revoked_node_that_reads_nothing_is_off_within_a_second(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup, trio.open_nursery() as nursery:
        control, session = await open_connection(setup.hub, node, nursery.start_soon)
        bulk, _ = await open_connection(setup.hub, node, nursery.start_soon, session)
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        await trio.testing.wait_all_tasks_blocked()
        control.deaf = bulk.deaf = True
        began = trio.current_time()
        # The clock stands still but where it is moved: what takes time would wait for ever.
        await setup.hub.update([])
        assert setup.hub.connected() == frozenset()
        assert trio.current_time() == began
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1.0)
        await trio.testing.wait_all_tasks_blocked()
        ended = control.closed.is_set() and bulk.closed.is_set()
        mock_clock.jump(60.0)  # lets the test end where they had not
        assert ended
