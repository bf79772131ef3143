"""The primary's side of all agents: who may connect, who is connected, and tasks pushed to nodes.

`Hub.update` says who may connect, and acts on live connections at once. How connections are judged is
in `reception.py`, what they carry in `agent/routing.py`.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import tls
from agent.backoff import Backoff
from agent.errors import LocalProtocolError, RemoteProtocolError, TransferFailed
from agent.libc import bulk_memory
from agent.link import LinkLost
from agent.routing import Session, Traffic
from agent.wire.channel import Channel
from agent.wire.frames import CONTROL_LIMIT
from agent.wire.messages import (
    LEAVING,
    NOTICES_SINCE,
    RENEWALS_SINCE,
    Cancel,
    DriftReport,
    Task,
    TaskReport,
    Work,
    needed_protocol,
)
from reconciler.drift import FIRST, Drifts
from reconciler.drift import LONGEST as LONGEST_PAUSE
from reconciler.errors import StepFailed
from reconciler.settings_values import Address
from reconciler.sync.bandwidth import Throttles
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.handed import HandedStream
from reconciler.sync.listener import Listener, open_listeners
from reconciler.sync.reception import OnPaired, Peer, Reception
from reconciler.sync.renewals import OnRenewed, Renewals
from reconciler.sync.serving import TreeSource, serve_task
from reconciler.sync.watch import SILENCE, AgentUnreachable, Heard, Watched
from reconciler.sync.workers import Wanted, Workers
from reconciler.tracing import current_trace

__all__ = ["LONGEST", "AgentUnreachable", "Hub", "Serve"]

LONGEST = 24 * 3600.0
"""Seconds that a task may take in all: an agent that always gets on must not hold up a pass for ever."""

PING_DEADLINE: Final = 10.0
"""Seconds that an agent has to answer a ping."""

LEAVE_DEADLINE: Final = 2.0
"""Seconds that agents have to hear that their primary goes away."""

_KEPT_TRAFFIC = 1000

Serve = Callable[[Channel, TreeSource], Awaitable[TaskReport]]

_log = logging.getLogger("trueup.sync")


class AgentTooOld(StepFailed):
    """The agent speaks a version of the protocol that has no such task."""

    reason = "AgentTooOld"


def _too_old(node: str, protocol: int, needed: int, what: str) -> AgentTooOld:
    return AgentTooOld(
        f"the agent of the node {node} is too old for {what}: it speaks version {protocol} of the protocol,"
        f" and {needed} is needed",
        hint=f"update trueup on that host (`trueup node install {node}`) and restart its agent",
    )


async def _nowhere(node: str, certificate: bytes, used: bool) -> None:
    """For hubs whose certificates are recorded nowhere else."""


class Hub:
    """All agents of one primary, for the time of `async with`.

    `key` is the primary's TLS key; its certificate is made anew at each start and stored with it in
    `tls_dir` (`server.crt`, `server.key`), because Python's ssl reads files. `on_paired(node,
    certificate_der, trust_on_first_use)` is awaited before an agent hears that it is paired, so that
    the pairing is durable then; if it raises, the agent is told to try again. `on_renewed(node,
    certificate_der, used)` likewise for another certificate, and once more when it was used. `epoch` is the
    fencing epoch that agents are shown. `workers` says how many worker processes so many nodes ask for.
    """

    def __init__(
        self,
        *,
        address: Address,
        key: Ed25519PrivateKey,
        tls_dir: Path,
        on_paired: OnPaired,
        on_renewed: OnRenewed = _nowhere,
        enrolments: Iterable[Enrolment] = (),
        epoch: int = 0,
        serve: Serve = serve_task,
        silence: float = SILENCE,
        workers: Wanted = lambda _nodes: 0,
    ) -> None:
        self._address = address
        self._key = key
        self._tls_dir = tls_dir
        self._initial = tuple(enrolments)
        self._serve = serve
        self._silence = silence
        self._traffic: OrderedDict[str, Traffic] = OrderedDict()
        self._reception = Reception(
            server_fp=tls.spki_fingerprint(key.public_key()),
            tls_dir=tls_dir,
            on_paired=on_paired,
            epoch=epoch,
        )
        self.drifts = Drifts(lambda: Backoff(first=FIRST, longest=LONGEST_PAUSE))
        """What agents said of drift and nobody has seen to."""
        self.throttles = Throttles()
        """The bandwidths of what is under way, over all passes."""
        self._drifted = trio.Event()
        self._on_renewed = on_renewed
        self._renewals: Renewals
        self._wanted = workers
        self._workers: Workers
        self._reception.on_drift = self._take_drift
        self._accepting = trio.CancelScope()
        self._manager: AbstractAsyncContextManager[trio.Nursery, bool | None]
        self._nursery: trio.Nursery
        self.addresses: tuple[Address, ...] = ()
        """Where it listens; known once it does."""

    @property
    def fingerprint(self) -> str:
        """The primary's, as it stands in join strings."""
        return self._reception.server_fp

    async def __aenter__(self) -> Self:
        """Raises SettingsError if the TLS directory or the address cannot be used."""
        await self._write_certificate()
        await self._reception.update(self._initial)
        listeners = await open_listeners(self._address)
        self.addresses = tuple(_address_of(listener) for listener in listeners)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._workers = Workers(self._tls_dir, self._wanted, self._nursery.start_soon)
        self._reception.attach(self._workers)
        listener = Listener(self._reception.context, self._reception.judge, self._workers.hand_over)
        self._renewals = Renewals(self._reception, self._on_renewed, self._nursery.start_soon)
        self._reception.renewals = self._renewals
        self._nursery.start_soon(self._accept, listener, listeners)
        return self

    async def _accept(self, listener: Listener, listeners: list[trio.SocketListener]) -> None:
        try:
            with self._accepting:
                await self._workers.begin(len(self._initial))
                await trio.serve_listeners(listener.serve, listeners, handler_nursery=self._nursery)
        finally:
            for each in listeners:  # where it never came to that
                each.socket.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._nursery.cancel_scope.cancel()
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # The caller's own exception stays what it was; only failures of the hub come as a group.
            if group.exceptions == (error,):
                return False
            raise

    async def renew_certificate(self) -> None:
        """Make and show another certificate for the same key, which is what agents know. Sessions stay.

        Raises SettingsError if the TLS directory cannot be used; then the one before goes on to be shown.
        """
        await self._write_certificate()
        await self._reception.renew()

    async def _write_certificate(self) -> None:
        await trio.to_thread.run_sync(
            tls.write_identity, self._tls_dir, "server", self._key, tls.PRIMARY_SUBJECT
        )

    # --- who -----------------------------------------------------------------------------------

    async def update(self, enrolments: Iterable[Enrolment]) -> None:
        """Let exactly these nodes connect from now on; those removed or changed are disconnected.

        Give certificates as recorded after the last `on_paired`: a node whose certificate is missing
        here has to pair again.
        """
        enrolled = tuple(enrolments)
        await self._reception.update(enrolled)
        self._workers.want(len(enrolled))
        self.drifts.keep(frozenset(enrolment.node for enrolment in enrolled))

    def show_epoch(self, epoch: int) -> None:
        """Show agents another epoch from now on; those that are connected have to come again to see it."""
        self._reception.show_epoch(epoch)

    def stand(self, state: str, message: str = "") -> None:
        """Tell all agents how far to rely on us, from now on also those that come; each is told once."""
        self._reception.stand(state, message)

    async def take_leave(self) -> None:
        """Before the end: let nobody in any more, and tell all agents, which then leave by themselves."""
        self._accepting.cancel()
        sessions = self._reception.sessions
        with trio.move_on_after(LEAVE_DEADLINE, shield=True):
            while any(session.protocol >= NOTICES_SINCE for session in sessions.values()):
                self.stand(LEAVING, "the primary goes away")
                await self.wait_change()

    def is_paired(self, node: str) -> bool:
        """Whether a certificate is enrolled for a node."""
        enrolment = self._reception.roster.by_node.get(node)
        return enrolment is not None and enrolment.certificate_der is not None

    def knows(self, node: str) -> bool:
        """Whether the node is in the spec, so that its agent may come."""
        return node in self._reception.roster.by_node

    @property
    def workers(self) -> int:
        """Worker processes that take connections."""
        return self._workers.up

    def connected(self) -> frozenset[str]:
        return frozenset(self._reception.sessions)

    def standing(self) -> Mapping[str, Session]:
        """The sessions that stand at the moment, by node."""
        return dict(self._reception.sessions)

    def peer(self, node: str) -> Peer | None:
        """Who is at the other end of a node's session; None while it is not connected."""
        return self._reception.peers[node] if node in self._reception.sessions else None

    async def ping(self, node: str) -> float:
        """The seconds that a message to a node's agent and its answer take, over the connection that its
        tasks use. Raises AgentUnreachable if it is not connected, or does not answer in time."""
        session = self._session(node)
        with trio.move_on_after(PING_DEADLINE):
            try:
                return await session.control.ping()
            except LinkLost as error:
                raise AgentUnreachable(f"the agent of the node {node} went away: {error}") from None
        raise AgentUnreachable(
            f"the agent of the node {node} is connected and did not answer within {PING_DEADLINE:g} seconds",
            hint="look at its log; a host that is overloaded or a network that drops packets looks like this",
        )

    async def renew_agent(self, node: str) -> bool:
        """Have a node's agent take another key and certificate, over its session. Whether it uses it already;
        otherwise it will once its tasks have ended. Raises AgentUnreachable, AgentTooOld, RenewalRefused."""
        session = self._session(node)
        if session.protocol < RENEWALS_SINCE:
            raise _too_old(node, session.protocol, RENEWALS_SINCE, "another certificate")
        return await self._renewals.renew(node, session)

    async def wait_change(self) -> None:
        """Until the next time that a node connects or disconnects."""
        await self._reception.wait_change()

    async def wait_drift(self) -> None:
        """Until the next time that an agent tells of drift."""
        await self._drifted.wait()

    async def wait_connected(self, nodes: Iterable[str], patience: float) -> set[str]:
        """Wait until all of these nodes are connected, at most `patience` seconds; gives those that are."""
        wanted = set(nodes)
        with trio.move_on_after(patience):
            while not wanted <= self._reception.sessions.keys():
                await self._reception.wait_change()
        return wanted & self._reception.sessions.keys()

    # --- tasks ---------------------------------------------------------------------------------

    async def run_task(
        self,
        node: str,
        task: Work,
        source: TreeSource | None = None,
        *,
        serve: Serve | None = None,
        heard: Heard = lambda _progress: None,
        known_as: str = "",
    ) -> TaskReport:
        """Push a task to a node and serve it until its report comes; the report may be of a failure.

        `source` is what an agent that needs something is served from, by `serve` if that is given; only a
        `Task` that places or itemises needs one. `heard` is told how far the agent says that it is. Its
        traffic is that of `known_as`, or of the task.
        Cancelling this cancels the task at the agent. Raises AgentUnreachable if the node is not
        connected, goes away, stops getting on or takes longer than a day, and StepFailed if the task is
        too large to be sent; AgentTooOld, before anything is sent, if it would not know the message.
        """
        session = self._session(node)
        if session.protocol < (needed := needed_protocol(task)):
            raise _too_old(node, session.protocol, needed, "this task")
        task = msgspec.structs.replace(task, trace=current_trace())
        channel = session.open(task.id)
        self._traffic[known_as or task.id] = channel.traffic
        while len(self._traffic) > _KEPT_TRAFFIC:
            self._traffic.popitem(last=False)
        finished = False
        try:
            with trio.move_on_after(LONGEST):
                if source is not None and isinstance(session.bulk.stream, HandedStream):
                    source.frames.shared = True
                # An agent that waits because of our limit has nothing to say.
                patience = source.throttle.patience if source is not None else 0.0
                watched = Watched(channel, node, self._silence + patience, heard)
                report = await self._converse(node, watched, task, source, serve or self._serve)
                finished = True
                return report
            raise AgentUnreachable(
                f"the agent of the node {node} did not end the task for {task.target_path} within"
                f" {LONGEST / 3600:g} hours",
                hint="what it has placed stays; the next attempt carries on",
            )
        except TransferFailed as error:
            if session.lost is None:
                raise
            raise AgentUnreachable(
                f"the agent of the node {node} went away during the task: {session.lost}"
            ) from error
        except RemoteProtocolError as error:
            session.end(error)
            raise
        finally:
            session.close(channel)
            if not finished:
                session.control.offer(Cancel(task=task.id, reason="the primary gave the task up"))

    def _session(self, node: str) -> Session:
        session = self._reception.sessions.get(node)
        if session is None:
            raise AgentUnreachable(
                f"the agent of the node {node} is not connected",
                hint="look at `trueup-agent status` on that host",
            )
        return session

    def _take_drift(self, node: str, report: DriftReport) -> None:
        if self.drifts.take(node, report):
            self._drifted.set()
            self._drifted = trio.Event()

    def traffic(self, task: str) -> Traffic:
        """Bytes on the wire of a task, also after its end (of the last 1,000); zeros if unknown."""
        return self._traffic.get(task, Traffic())

    async def _converse(
        self, node: str, watched: Watched, task: Work, source: TreeSource | None, serve: Serve
    ) -> TaskReport:
        try:
            await watched.send(task)
        except LocalProtocolError:
            raise StepFailed(
                f"the task for {task.target_path} on {node} is larger than {CONTROL_LIMIT} bytes",
                hint="make its rendered files smaller, or sync them as part of the tree"
                if isinstance(task, Task)
                else "make its variables smaller",
            ) from None
        if source is not None:
            with bulk_memory():
                return await serve(watched, source)
        message, _ = await watched.receive()
        if isinstance(message, TaskReport):
            return message
        raise RemoteProtocolError(
            f"the agent of the node {node} answered the task with a {type(message).__name__}",
            hint="update agent and primary to the same version",
        )


def _address_of(listener: trio.SocketListener) -> Address:
    host, port, *_ = listener.socket.getsockname()
    return Address(host, port)
