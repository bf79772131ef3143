"""An agent's life: pair once, then hold a session with a primary, and come back when it breaks.

Only what this host alone can mend ends the agent (a damaged key, a wrong setting). Whatever a primary
says no to is said once and tried again, at least every 30 s: one mistaken commit to the spec must not
make a visit to every host necessary.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio
from cryptography.x509 import Certificate

from agent import tls
from agent.address import Address
from agent.backoff import Backoff
from agent.certificates import CLIENT, NEXT, Certificates
from agent.dial import HANDSHAKE_DEADLINE, SESSION_PREFACE, Dial, dial
from agent.drift import DriftWatch
from agent.errors import ConnectionRefused, RemoteProtocolError, SettingsError
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link, LinkLost, Timing
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.pairing import pair
from agent.renewal import Renewal
from agent.routing import Session, TaskChannel
from agent.status import Board
from agent.version import agent_version
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import (
    LEAVING,
    PROTOCOL_VERSIONS,
    UNSURE,
    Cancel,
    Hello,
    HelloAck,
    Notice,
    Standing,
    Work,
)
from agent.wire.renewal import CertificateAnswer, RenewCertificate
from agent.workers import MAX_TASKS, Runner, Workers

T = TypeVar("T")
R = TypeVar("R")

Shown = tuple[str, Certificate]
"""A certificate, and the name that it has in the TLS directory."""

_log = logging.getLogger("trueup.agent")

GOOD_SESSION = 30.0
"""Seconds after which a session counts as good, so that the next attempt starts over with short waits."""

SPREAD = 1.0
"""Seconds at most until agents whose primary said that it goes away try again, each after a part of them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is, and whom it trusts."""

    node: str
    token: NodeToken
    certificate: Certificate
    pin: str | None
    """The primary's fingerprint from the configuration; without one, the first that was met."""


@dataclass(slots=True, eq=False)
class _Live:
    """A session, to whom, and what the primary has said of itself."""

    address: Address
    session: Session
    renewal: Renewal
    is_new: bool = False
    """The next certificate has opened it."""
    state: str = ""
    news: trio.Event = field(default_factory=trio.Event)

    def take(self, notice: Notice) -> None:
        if isinstance(notice, Standing):
            self.state = notice.state
            self.news.set()
            self.news = trio.Event()
            if notice.state == LEAVING:
                self.session.end(LinkLost(notice.message or "the primary goes away"))
        elif isinstance(notice, RenewCertificate | CertificateAnswer):
            self.renewal.take(notice)


class Agent:
    """Runs until it is cancelled. `sleep` and what is drawn can be replaced for tests."""

    def __init__(
        self,
        identity: Identity,
        primaries: tuple[Address, ...],
        memory: Memory,
        board: Board,
        runner: Runner,
        *,
        max_tasks: int = MAX_TASKS,
        drift: DriftWatch | None = None,
        dial: Dial = dial,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = trio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._identity = identity
        self._primaries = list(primaries)
        self._memory = memory
        self._certificates = Certificates(memory.tls_dir, identity.node)
        self._board = board
        self._runner = runner
        self._max_tasks = max_tasks
        self._drift = drift
        self._live: _Live | None = None
        self._newest = 0
        """The highest epoch that any primary has shown since this agent runs."""
        self._successor: _Live | None = None
        """A session with a newer primary, found while the one before was unsure, and not served yet."""
        self._draw = draw
        self._dial = dial
        self._backoff = backoff or Backoff()
        self._sleep = sleep

    @property
    def session(self) -> Session | None:
        """The one that stands now."""
        return self._live.session if self._live is not None else None

    async def run(self) -> None:
        """Connect, serve, reconnect, for ever. Raises SettingsError for what only this host can mend."""
        await self._board.started()
        async with trio.open_nursery() as nursery:
            if self._drift is not None:
                nursery.start_soon(self._drift.run, lambda: self.session)
            workers = Workers(self._runner, self._board, nursery, limit=self._max_tasks)
            try:
                while True:
                    await self._sleep(await self._round(workers))
            finally:
                if self._successor is not None:
                    await self._successor.session.aclose()

    async def _round(self, workers: Workers) -> float:
        """Try each address, the last that served first, until one has served; gives the wait in seconds."""
        if self._successor is not None:
            live, self._successor = self._successor, None
            return await self._serve(live, workers)
        problems = []
        for address in list(self._primaries):
            try:
                live = await self._connect(address, workers)
            except (LinkLost, ConnectionRefused, RemoteProtocolError) as error:
                text = str(error)
                problems.append(text if text.startswith(f"{address}: ") else f"{address}: {text}")
                continue
            return await self._serve(live, workers)
        await self._board.disconnected("; ".join(problems))
        return self._backoff.next()

    async def _serve(self, live: _Live, workers: Workers) -> float:
        """Carry a session to its end. The seconds to wait then, before its primary is the first to be tried
        again, or the last if it has left."""
        began = trio.current_time()
        address, session = live.address, live.session
        self._primaries.remove(address)
        self._primaries.insert(0, address)
        try:
            await self._board.connected(address)
            if live.is_new:
                with suppress(LinkLost):  # the next connection sees to it
                    await self._on_disk(address, self._certificates.promote)
                _log.info("the new certificate is in use")
            self._live = live
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._seek, live, workers)
                nursery.start_soon(live.renewal.run, session, workers)
                reason = await session.run()
                nursery.cancel_scope.cancel()
            await self._board.disconnected(f"{address}: {reason}")
        finally:
            self._live = None
            workers.abandon(session)
            await session.aclose()
            if trio.current_time() - began >= GOOD_SESSION:
                self._backoff.reset()
        if self._successor is not None:
            return 0.0
        if live.state == LEAVING:
            self._primaries.append(self._primaries.pop(0))
            self._backoff.reset()
            return SPREAD * self._draw()
        return self._backoff.next()

    async def _seek(self, live: _Live, workers: Workers) -> None:
        """While the primary is unsure whether it leads: look for one that does, and change over to it."""
        backoff = Backoff(first=SPREAD, draw=self._draw)
        while True:
            while live.state != UNSURE:
                backoff.reset()
                await live.news.wait()
            with trio.move_on_after(backoff.next()):
                await live.news.wait()
            if live.state != UNSURE:
                continue
            newest = await trio.to_thread.run_sync(self._memory.epoch)
            for address in [each for each in self._primaries if each != live.address]:
                try:
                    self._successor = await self._connect(address, workers, above=newest)
                except (LinkLost, ConnectionRefused, RemoteProtocolError) as error:
                    _log.debug("no successor: %s", error)
                    continue
                live.session.end(LinkLost(f"the primary at {address} has taken over"))
                return

    async def _connect(self, address: Address, workers: Workers, *, above: int = -1) -> _Live:
        """Pair if that was never done, then open both connections of a session; with a primary whose epoch is
        not `above` that, none."""
        pin = self._identity.pin or await trio.to_thread.run_sync(self._memory.server)
        if await trio.to_thread.run_sync(self._memory.server) is None:
            pin = await self._pair(address)
        (control, answer), shown = await self._hello_with_either(address, pin)
        try:
            if answer.epoch <= above:
                raise ConnectionRefused(f"{address}: this primary succeeded nobody")
            await self._check_epoch(address, answer.epoch)
            bulk, _ = await self._hello(address, pin, answer.session, BULK_TIMING, 0, shown)
        except BaseException:
            await control.aclose()
            raise

        def on_task(task: Work, channel: TaskChannel) -> None:
            if answer.epoch < self._newest:
                # It has been succeeded since, although nobody serves this agent yet.
                session.end(LinkLost("another primary has succeeded this one"))
                return
            # A primary that gives us work is a good one, however short the session: one that only makes
            # passes goes away after each.
            self._backoff.reset()
            workers.start(session, task, channel)

        def on_cancel(cancel: Cancel) -> None:
            workers.cancel(session, cancel)

        def on_notice(notice: Notice) -> None:
            live.take(notice)

        session = Session(
            Role.AGENT,
            control,
            bulk,
            on_task=on_task,
            on_cancel=on_cancel,
            on_notice=on_notice,
            protocol=answer.protocol,
        )
        identity, name = self._identity, shown[0]
        renewal = Renewal(
            self._certificates, identity.node, identity.token, pin or "", tls.spki_fingerprint(shown[1])
        )
        live = _Live(address, session, renewal, is_new=name == NEXT)
        return live

    async def _hello_with_either(
        self, address: Address, pin: str | None
    ) -> tuple[tuple[Link, HelloAck], Shown]:
        """The control connection of a session, and what was shown on it. Where the next certificate is not
        let in, the one before is: the record of the next one may be lost."""
        shown = await self._on_disk(address, self._certificates.shown)
        try:
            return await self._hello(address, pin, b"", CONTROL_TIMING, CONTROL_BACKLOG, shown), shown
        except (LinkLost, ConnectionRefused):
            if shown[0] != NEXT:
                raise
        shown = CLIENT, await self._on_disk(address, self._certificates.serving)
        accepted = await self._hello(address, pin, b"", CONTROL_TIMING, CONTROL_BACKLOG, shown)
        with suppress(LinkLost):
            await self._on_disk(address, self._certificates.refused)
        return accepted, shown

    async def _pair(self, address: Address) -> str:
        identity = self._identity
        fingerprint = await pair(
            address,
            node=identity.node,
            certificate=identity.certificate,
            token=identity.token,
            pin=identity.pin,
            dial=self._dial,
        )
        await self._remember(address, self._memory.remember_server, fingerprint)
        await self._board.paired(address, fingerprint)
        return fingerprint

    async def _hello(
        self, address: Address, pin: str | None, session: bytes, timing: Timing, backlog: int, shown: Shown
    ) -> tuple[Link, HelloAck]:
        """Open one connection of a session and be accepted on it."""
        identity, (name, certificate) = self._identity, shown
        dialled = await self._dial(
            address, SESSION_PREFACE, identity=self._memory.tls_dir, pin=pin, name=name
        )
        connection = Connection(Role.AGENT, Phase.HELLO)
        link = Link(dialled.stream, connection, timing=timing, backlog=backlog)
        statement = tls.hello_statement(
            dialled.fingerprint, tls.spki_fingerprint(certificate), identity.node, session
        )
        hello = Hello(
            node=identity.node,
            protocols=PROTOCOL_VERSIONS,
            agent_version=agent_version(),
            session=session,
            signature=identity.token.sign(statement),
        )
        accepted = False
        try:
            with trio.move_on_after(HANDSHAKE_DEADLINE):
                await link.write(hello)
                answer = await link.read()
                if not isinstance(answer, HelloAck):
                    raise RemoteProtocolError("the primary answered the hello with something else")
                if not answer.accepted:
                    raise ConnectionRefused(f"{address}: refused ({answer.reason}): {answer.message}")
                if answer.protocol not in PROTOCOL_VERSIONS:
                    raise RemoteProtocolError(f"the primary chose an unknown protocol {answer.protocol}")
                accepted = True
                return link, answer
        except LinkLost as error:
            again = (
                "if that stays so, stop this agent and join again: with what `trueup node rotate-token"
                f" {identity.node}` prints at the primary, or, unless the node was revoked, with its old"
                f" token after `trueup node repair {identity.node}`"
            )
            hint = again if "certificate" in str(error) else None
            raise LinkLost(f"{address}: {error}", hint=hint) from None
        finally:
            if not accepted:
                await link.aclose()
        raise LinkLost(f"{address}: no answer to the hello within {HANDSHAKE_DEADLINE:g} seconds")

    async def _check_epoch(self, address: Address, epoch: int) -> None:
        self._newest = max(self._newest, epoch)
        newest = await trio.to_thread.run_sync(self._memory.epoch)
        if epoch < newest:
            raise ConnectionRefused(
                f"{address}: this primary was succeeded by another (its epoch is {epoch}, the newest seen is"
                f" {newest})",
                hint="stop it, or take its address from the agent's configuration",
            )
        if epoch > newest:
            await self._remember(address, self._memory.remember_epoch, epoch)

    async def _remember(self, address: Address, write: Callable[[T], None], value: T) -> None:
        await self._on_disk(address, partial(write, value))

    async def _on_disk(self, address: Address, work: Callable[[], R]) -> R:
        """Without it there is no session; a disk that is full now may have room at the next attempt."""
        try:
            return await trio.to_thread.run_sync(work)
        except SettingsError as error:
            raise LinkLost(f"{address}: {error}") from error
