"""Judges every caller against the roster: pairs it, binds it to a session, or turns it away with a reason.

A node is connected when both connections of its session stand. A newer session of the same node
replaces the older one, because an agent that comes back knows better than we do that its old
connection is dead.
"""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING

import trio

from agent import contexts
from agent.dial import HANDSHAKE_DEADLINE
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link, LinkLost
from agent.routing import Session
from agent.wire.connection import Phase, Role
from agent.wire.messages import (
    LEADING,
    NOTICES_SINCE,
    DriftReport,
    Hello,
    HelloAck,
    Notice,
    PairAck,
    PairRequest,
    Standing,
)
from agent.wire.renewal import CertificateOffer
from reconciler.sync.enrolment import Enrolment, Refusal, Roster, judge_hello, judge_pairing, shared_protocol
from reconciler.sync.listener import Caller, Continue, refuse

if TYPE_CHECKING:
    from reconciler.sync.renewals import Renewals
    from reconciler.sync.workers import Workers

OnPaired = Callable[[str, bytes, bool], Awaitable[None]]
"""(node, certificate in DER, whether the agent trusted us on first use) -> recorded for good."""

OnDrift = Callable[[str, DriftReport], None]
"""(node, what its agent says) -> taken note of, at once."""

_REVOKED = "the node was removed or changed"

_log = logging.getLogger("trueup.sync")


@dataclass(frozen=True, slots=True)
class Peer:
    """What an agent has said of itself, and where it comes from. `since` is of the event loop's clock."""

    agent_version: str
    protocol: int
    address: str
    since: float


@dataclass(frozen=True, slots=True)
class Base:
    """What a session rests upon: it ends once one of it counts no more."""

    node: str
    token_key: str
    pin: str | None
    shown: bytes
    """The certificate, in DER."""

    def holds(self, roster: Roster) -> bool:
        now = roster.by_node.get(self.node)
        return now is not None and (now.token_key, now.pin) == (self.token_key, self.pin) and self.is_in(now)

    def is_in(self, enrolment: Enrolment) -> bool:
        return self.shown in enrolment.accepted()


@dataclass(eq=False)
class _Opening:
    """A session whose control connection stands and whose bulk connection is awaited."""

    node: str
    base: "Base"
    control: Link
    protocol: int
    agent_version: str
    bulk: Link | None = None
    ready: trio.Event = field(default_factory=trio.Event)
    """The bulk connection stands, or the session shall not be."""
    over: trio.Event = field(default_factory=trio.Event)


class Reception:
    def __init__(self, *, server_fp: str, tls_dir: Path, on_paired: OnPaired, epoch: int) -> None:
        self.server_fp = server_fp
        self.epoch = epoch
        self.roster = Roster()
        self.sessions: dict[str, Session] = {}
        self.peers: dict[str, Peer] = {}
        """Who is at the other end of each session."""
        self.bases: dict[str, Base] = {}
        """By node that is connected, what its session rests upon."""
        self.renewals: Renewals | None = None
        self._standing = LEADING, ""
        self._informed: dict[Session, str] = {}
        """What agents were told last of how we stand; nothing: that we lead."""
        self._tls_dir = tls_dir
        self._workers: Workers | None = None
        self.on_drift: OnDrift = lambda _node, _report: None
        self._on_paired = on_paired
        self._contexts: dict[Phase, SSLContext] = {}
        self._anchored: frozenset[str] | None = None  # what the session context was built from
        self._openings: dict[bytes, _Opening] = {}
        self._pairing: dict[str, trio.Lock] = {}
        self._updating = trio.Lock()
        self._change = trio.Event()

    async def wait_change(self) -> None:
        """Until a session begins or ends."""
        await self._change.wait()

    def context(self, phase: Phase) -> SSLContext:
        return self._contexts[phase]

    async def update(self, enrolments: Iterable[Enrolment]) -> None:
        """See `Hub.update`. Who is no longer enrolled is out before this waits for anything."""
        self.roster = Roster.of(enrolments)
        based = [*self.bases.values(), *(opening.base for opening in self._openings.values())]
        for base in based:
            if not base.holds(self.roster):
                self._disconnect(base.node)
        async with self._updating:
            enrolled = frozenset(self.roster.by_certificate)
            if enrolled == self._anchored:
                return
            # Anchors cannot be taken out of a context. Until the new one is there, the exact look-up
            # after the handshake keeps out whose certificate is no longer enrolled.
            anchors = self.roster.anchors()
            self._contexts[Phase.HELLO] = await trio.to_thread.run_sync(
                contexts.session_server_context, self._tls_dir, anchors
            )
            self._anchored = enrolled
            self._tell_workers(anchors)
            if Phase.PAIRING not in self._contexts:
                self._contexts[Phase.PAIRING] = await trio.to_thread.run_sync(
                    contexts.pairing_server_context, self._tls_dir
                )

    async def renew(self) -> None:
        """See `Hub.renew_certificate`."""
        async with self._updating:
            anchors = self.roster.anchors()
            session = await trio.to_thread.run_sync(contexts.session_server_context, self._tls_dir, anchors)
            pairing = await trio.to_thread.run_sync(contexts.pairing_server_context, self._tls_dir)
            self._contexts = {Phase.HELLO: session, Phase.PAIRING: pairing}
            self._anchored = frozenset(self.roster.by_certificate)
            self._tell_workers(anchors)

    def attach(self, workers: "Workers") -> None:
        """Let these know, too, whom to accept."""
        self._workers = workers
        self._tell_workers(self.roster.anchors())

    def _tell_workers(self, anchors: list[bytes]) -> None:
        if self._workers is not None:
            self._workers.show(anchors)

    def show_epoch(self, epoch: int) -> None:
        """See `Hub.show_epoch`."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        newer = LinkLost("the primary has taken the lease; connect again")
        for node, session in list(self.sessions.items()):
            del self.sessions[node]
            del self.bases[node]
            session.end(newer)
            self._close_openings(node)
        for opening in list(self._openings.values()):
            self._close_openings(opening.node)
        self.changed()

    def stand(self, state: str, message: str) -> None:
        """See `Hub.stand`."""
        self._standing = state, message
        for node in self.sessions:
            self._inform(node)

    def _inform(self, node: str) -> None:
        """Tell an agent how we stand, unless it knows. What finds no room now is told the next time."""
        session, (state, message) = self.sessions[node], self._standing
        if session.protocol < NOTICES_SINCE or self._informed.get(session, LEADING) == state:
            return
        if session.control.offer(Standing(state=state, epoch=self.epoch, message=message)):
            self._informed[session] = state

    async def judge(self, caller: Caller) -> Continue | None:
        """Answer a caller's first message; what is left to do on its connection, or None."""
        if isinstance(caller.message, PairRequest):
            return await self._judge_pairing(caller, caller.message)
        if isinstance(caller.message, Hello):
            return await self._judge_hello(caller, caller.message)
        raise AssertionError("the state machine lets nothing else through")

    # --- pairing -------------------------------------------------------------------------------

    async def _judge_pairing(self, caller: Caller, request: PairRequest) -> Continue | None:
        refusal = self._pairing_refusal(request)
        if refusal is not None:
            await refuse(caller, PairAck(accepted=False, reason=refusal.reason, message=refusal.message))
            return None
        return lambda: self._pair(caller, request)

    async def _pair(self, caller: Caller, request: PairRequest) -> None:
        """Record the pairing, one at a time for each node, so that of several agents one wins."""
        node = request.node
        lock = self._pairing.setdefault(node, trio.Lock())
        async with lock:
            refusal = self._pairing_refusal(request)
            enrolment = self.roster.by_node.get(node)
            if refusal is None and enrolment is not None and enrolment.certificate_der is None:
                refusal = await self._record(request, enrolment)
        with trio.move_on_after(HANDSHAKE_DEADLINE):
            if refusal is not None:
                await refuse(caller, PairAck(accepted=False, reason=refusal.reason, message=refusal.message))
                return
            note = "" if request.pinned else " (it trusted us on first use)"
            _log.info("paired node %s from %s%s", node, caller.peer, note)
            await caller.link.write(PairAck(accepted=True))
            await caller.linger()

    async def _record(self, request: PairRequest, enrolment: Enrolment) -> Refusal | None:
        node = request.node
        try:
            await self._on_paired(node, request.certificate, not request.pinned)
        except Exception as error:
            _log.error("the pairing of node %s could not be recorded: %s", node, error)
            return Refusal("NotRecorded", "the primary could not record the pairing: try again later")
        current = self.roster.by_node.get(node)
        if current is None or current.token_key != enrolment.token_key:
            return Refusal("TokenRefused", _REVOKED)
        paired = replace(current, certificate_der=request.certificate)
        await self.update([*(e for e in self.roster.by_node.values() if e.node != node), paired])
        return None

    def _pairing_refusal(self, request: PairRequest) -> Refusal | None:
        return judge_pairing(
            request, self.roster.by_node.get(request.node), server_fp=self.server_fp, now=time.time()
        )

    # --- sessions ------------------------------------------------------------------------------

    async def _judge_hello(self, caller: Caller, hello: Hello) -> Continue | None:
        refusal = judge_hello(hello, caller.certificate, self.roster, server_fp=self.server_fp)
        opening = self._openings.get(hello.session) if hello.session else None
        is_its_own = opening is not None and opening.base.shown == caller.certificate
        if refusal is None and hello.session and not is_its_own:
            refusal = Refusal("SessionUnknown", "there is no such session: open a control connection first")
        if refusal is not None:
            await refuse(caller, HelloAck(accepted=False, reason=refusal.reason, message=refusal.message))
            return None
        if opening is None:
            return await self._accept_control(caller, hello)
        return await self._accept_bulk(caller, hello, opening)

    async def _accept_control(self, caller: Caller, hello: Hello) -> Continue:
        # One at a time for a node: one that opens and opens holds no more of our connections.
        self._close_openings(hello.node)
        session = secrets.token_bytes(16)
        link = caller.link
        control = Link(link.stream, link.connection, timing=CONTROL_TIMING, backlog=CONTROL_BACKLOG)
        protocol = shared_protocol(hello.protocols) or 0
        enrolment = self.roster.by_node[hello.node]
        base = Base(hello.node, enrolment.token_key, enrolment.pin, caller.certificate or b"")
        opening = _Opening(hello.node, base, control, protocol, hello.agent_version)
        self._openings[session] = opening
        try:
            await control.write(self._accepted(hello, session))
        except BaseException:
            self._openings.pop(session, None)
            raise
        return lambda: self._run_session(caller, session, opening)

    async def _accept_bulk(self, caller: Caller, hello: Hello, opening: _Opening) -> Continue:
        # Taken out first, so that a second connection cannot claim the same session meanwhile.
        del self._openings[hello.session]
        link = caller.link
        bulk = Link(link.stream, link.connection, timing=BULK_TIMING)
        try:
            await bulk.write(self._accepted(hello, hello.session))
            opening.bulk = bulk
        finally:
            opening.ready.set()
        return opening.over.wait

    def _accepted(self, hello: Hello, session: bytes) -> HelloAck:
        protocol = shared_protocol(hello.protocols)
        return HelloAck(accepted=True, protocol=protocol or 0, session=session, epoch=self.epoch)

    async def _run_session(self, caller: Caller, session_id: bytes, opening: _Opening) -> None:
        node = opening.node
        try:
            with trio.move_on_after(HANDSHAKE_DEADLINE):
                await opening.ready.wait()
            if opening.bulk is None or not opening.base.holds(self.roster):
                await opening.control.aclose()
                _log.warning("closed the session of node %s: no bulk connection, or no right to one", node)
                return

            def on_notice(notice: Notice) -> None:
                if isinstance(notice, DriftReport):
                    self.on_drift(node, notice)
                elif isinstance(notice, CertificateOffer) and self.renewals is not None:
                    self.renewals.take(node, session, opening.base, notice)

            session = Session(
                Role.PRIMARY,
                opening.control,
                opening.bulk,
                on_notice=on_notice,
                protocol=opening.protocol,
            )
            older = self.sessions.get(node)
            self.sessions[node] = session
            self.bases[node] = opening.base
            self.peers[node] = Peer(opening.agent_version, opening.protocol, caller.peer, trio.current_time())
            if older is not None:
                older.end(LinkLost("the agent connected again"))
            self._inform(node)
            if self.renewals is not None:
                self.renewals.connected(node, session, opening.base)
            self.changed()
            _log.info("node %s connected from %s", node, caller.peer)
            try:
                reason = await session.run()
                _log.info("node %s disconnected: %s", node, reason)
            finally:
                self._informed.pop(session, None)
                if self.sessions.get(node) is session:
                    del self.sessions[node]
                    del self.bases[node]
                    self.changed()
        finally:
            self._openings.pop(session_id, None)
            opening.over.set()

    def _disconnect(self, node: str) -> None:
        revoked = LinkLost(_REVOKED)
        session = self.sessions.pop(node, None)
        self.bases.pop(node, None)
        if session is not None:
            session.end(revoked)
            self.changed()
        self._close_openings(node)

    def _close_openings(self, node: str) -> None:
        for key, opening in list(self._openings.items()):
            if opening.node == node:
                del self._openings[key]
                opening.ready.set()

    def changed(self) -> None:
        """Wake up who waits for another state of connections or certificates."""
        self._change.set()
        self._change = trio.Event()
