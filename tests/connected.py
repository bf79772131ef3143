"""A real hub and real agents in one process, over TLS on loopback, without a data plane.

Agents run scripts instead of writing files, and the hub serves scripts instead of trees, so that a
test says exactly what is sent.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import tls
from agent.address import Address
from agent.backoff import Backoff
from agent.dial import SESSION_PREFACE, Dial, Dialled, dial
from agent.drift import DriftWatch
from agent.errors import TransferFailed
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.pairing import pair
from agent.routing import Session
from agent.session import Agent, Identity
from agent.status import Board
from agent.wire.channel import Channel
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import PROTOCOL_VERSIONS, AnyMessage, Hello, HelloAck, Task, TaskReport
from agent.workers import Runner
from reconciler.settings_values import Address as ListenAddress
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.hub import Hub, Serve
from reconciler.sync.renewals import OnRenewed
from reconciler.sync.serving import TreeSource

DEADLINE = 120.0
"""Seconds until a test that waits for something gives up; only a hang gets there."""

WORKERS = 0
"""Worker processes of a hub, unless a test says."""

SOURCE = TreeSource(Path("nowhere"), (), tree=b"", files=0, bytes=0, warnings=(), found={}, mtime_ns=0)
"""Passed through the hub to the script that serves; no script looks at it."""


async def refuse_to_serve(channel: Channel, source: TreeSource) -> TaskReport:
    raise AssertionError("this test serves nothing")


async def succeed(task: Task, channel: Channel) -> TaskReport:
    return TaskReport(task=task.id, state="SUCCESS", established=task.tree)


def make_task(task_id: str, *, target: str = "/srv/p", observe: bool = True) -> Task:
    return Task(
        id=task_id, project="p", target_path=target, observe=observe, strategy="mirror", tree=bytes(32)
    )


@dataclass
class Node:
    """One agent's belongings."""

    name: str
    token: NodeToken
    memory: Memory

    @property
    def certificate(self) -> bytes:
        return tls.to_der(self.memory.identity(self.name))

    def enrolment(self, *, paired: bool = False, **fields: object) -> Enrolment:
        certificate = self.certificate if paired else None
        return Enrolment(self.name, self.token.public_text, certificate_der=certificate, **fields)  # type: ignore[arg-type]


def make_node(tmp_path: Path, name: str = "web-1", *, directory: str = "") -> Node:
    state = tmp_path / (directory or name)
    return Node(name, NodeToken.generate(), Memory(state, state / "tls"))


@dataclass
class Setup:
    """A hub with what it recorded."""

    hub: Hub
    paired: list[tuple[str, bytes, bool]] = field(default_factory=list)
    opened: list[trio.abc.Stream] = field(default_factory=list)
    """What the test opened itself; closed with the hub."""

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.hub.addresses[0].port)

    def agent(
        self,
        node: Node,
        runner: Runner = succeed,
        *,
        pin: str | None = None,
        primaries: tuple[Address, ...] = (),
        drift: DriftWatch | None = None,
        sleep: Callable[[float], Awaitable[None]] = trio.sleep,
        dial: Dial = dial,
    ) -> Agent:
        """An agent that reconnects without waiting."""
        identity = Identity(
            node.name, node.token, node.memory.identity(node.name), pin or self.hub.fingerprint
        )
        return Agent(
            identity,
            primaries or (self.address,),
            node.memory,
            Board(node.memory.state_dir, node=node.name, version="test"),
            runner,
            drift=drift,
            dial=dial,
            backoff=Backoff(first=0.001, longest=0.01),
            sleep=sleep,
        )

    async def pair(
        self,
        node: Node,
        *,
        pin: str | None = "",
        address: Address | None = None,
        token: NodeToken | None = None,
    ) -> str:
        """Pair as `trueup-agent join` does; the hub's own fingerprint is the pin unless one is given."""
        return await pair(
            address or self.address,
            node=node.name,
            certificate=node.memory.identity(node.name),
            token=token or node.token,
            pin=self.hub.fingerprint if pin == "" else pin,
        )

    async def dial(self, node: Node | Path | None, preface: bytes = SESSION_PREFACE) -> Dialled:
        """A TLS connection on which nothing was said."""
        directory = node.memory.tls_dir if isinstance(node, Node) else node
        if isinstance(node, Node):
            node.memory.identity(node.name)
        dialled = await dial(self.address, preface, identity=directory, pin=self.hub.fingerprint)
        self.opened.append(dialled.stream)
        return dialled

    async def open_raw(self) -> trio.SocketStream:
        """A TCP connection on which nothing was said."""
        stream = await trio.open_tcp_stream(self.address.host, self.address.port)
        self.opened.append(stream)
        return stream

    async def hello(
        self, node: Node, *, session: bytes = b"", identity: Path | None = None, **changes: object
    ) -> tuple[Link, AnyMessage]:
        """One connection with a hello as the arguments say, and its answer."""
        dialled = await self.dial(identity or node)
        link = Link(dialled.stream, Connection(Role.AGENT, Phase.HELLO), timing=BULK_TIMING)
        own = tls.load_identity(identity or node.memory.tls_dir, "client")
        assert own is not None
        statement = tls.hello_statement(
            self.hub.fingerprint, tls.spki_fingerprint(own), str(changes.get("node", node.name)), session
        )
        fields: dict[str, object] = {
            "node": node.name,
            "protocols": PROTOCOL_VERSIONS,
            "agent_version": "test",
            "session": session,
            "signature": node.token.sign(statement),
        }
        await link.write(Hello(**(fields | changes)))  # type: ignore[arg-type]
        return link, await link.read()


@asynccontextmanager
async def running_hub(
    tmp_path: Path,
    enrolments: Iterable[Enrolment] = (),
    *,
    key: Ed25519PrivateKey | None = None,
    epoch: int = 0,
    serve: Serve = refuse_to_serve,
    on_paired: Callable[[str, bytes, bool], Awaitable[None]] | None = None,
    on_renewed: OnRenewed | None = None,
    silence: float = 600.0,
    port: int = 0,
    workers: int | None = None,
) -> AsyncIterator[Setup]:
    """A hub on loopback, on a free port unless one is given; a test that hangs fails after a minute."""
    paired: list[tuple[str, bytes, bool]] = []

    async def record(node: str, certificate: bytes, trust_on_first_use: bool) -> None:
        if on_paired is not None:
            await on_paired(node, certificate, trust_on_first_use)
        paired.append((node, certificate, trust_on_first_use))

    hub = Hub(
        address=ListenAddress("127.0.0.1", port),
        key=key or Ed25519PrivateKey.generate(),
        tls_dir=tmp_path / "hub-tls",
        on_paired=record,
        **({} if on_renewed is None else {"on_renewed": on_renewed}),
        enrolments=enrolments,
        epoch=epoch,
        serve=serve,
        silence=silence,
        workers=lambda _nodes: WORKERS if workers is None else workers,
    )
    with trio.fail_after(600):
        async with hub:
            setup = Setup(hub, paired)
            try:
                yield setup
            finally:
                for stream in setup.opened:
                    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def connected(setup: Setup, node: Node, runner: Runner = succeed) -> AsyncIterator[None]:
    """An agent that is connected for the time of the block, and whose end the hub has noticed after it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setup.agent(node, runner).run)
        assert await setup.hub.wait_connected([node.name], DEADLINE) == {node.name}
        yield
        nursery.cancel_scope.cancel()
    await until(setup, lambda: node.name not in setup.hub.connected())


@asynccontextmanager
async def hub_and_agent(
    tmp_path: Path, runner: Runner = succeed, serve: Serve = refuse_to_serve, *, silence: float = 600.0
) -> AsyncIterator[Setup]:
    """A hub and the one agent that is connected to it."""
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], serve=serve, silence=silence) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, node, runner):
            yield setup


async def raw_session(setup: Setup, node: Node, nursery: trio.Nursery) -> Session:
    """An agent's session in the hands of the test, which may say whatever the state machine allows."""
    links = []
    session_id = b""
    for timing, backlog in ((CONTROL_TIMING, CONTROL_BACKLOG), (BULK_TIMING, 0)):
        link, answer = await setup.hello(node, session=session_id)
        assert isinstance(answer, HelloAck)
        assert answer.accepted
        session_id = answer.session
        links.append(Link(link.stream, link.connection, timing=timing, backlog=backlog))
    session = Session(Role.AGENT, *links, on_task=lambda task, channel: None, on_cancel=lambda cancel: None)
    nursery.start_soon(session.run)
    await setup.hub.wait_connected([node.name], DEADLINE)
    return session


async def until(setup: Setup, condition: Callable[[], bool]) -> None:
    """Until a condition on the hub holds, looking whenever a session begins or ends."""
    with trio.fail_after(DEADLINE):
        while not condition():
            await setup.hub.wait_change()


async def until_lost(session: Session) -> None:
    """Until a session of the test's own has noticed its end."""
    channel = session.open("waits for the end")
    with trio.fail_after(120), pytest.raises(TransferFailed):
        await channel.receive()
