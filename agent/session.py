"""An agent's life: pair once, then hold a session with a primary, and come back when it breaks.

Only what this host alone can mend ends the agent (a damaged key, a wrong setting). Whatever a primary
says no to is said once and tried again, at least every 30 s: one mistaken commit to the spec must not
make a visit to every host necessary.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio
from cryptography.x509 import Certificate

from agent import tls
from agent.address import Address
from agent.backoff import Backoff
from agent.dial import HANDSHAKE_DEADLINE, SESSION_PREFACE, Dial, dial
from agent.drift import DriftWatch
from agent.errors import ConnectionRefused, RemoteProtocolError, SettingsError, TrueupError
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link, LinkLost, Timing
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.pairing import pair
from agent.routing import Session, TaskChannel
from agent.status import Board
from agent.version import agent_version
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import PROTOCOL_VERSIONS, Cancel, Hello, HelloAck, Work
from agent.workers import MAX_TASKS, Runner, Workers

T = TypeVar("T")

GOOD_SESSION = 30.0
"""Seconds after which a session counts as good, so that the next attempt starts over with short waits."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is, and whom it trusts."""

    node: str
    token: NodeToken
    certificate: Certificate
    pin: str | None
    """The primary's fingerprint from the configuration; without one, the first that was met."""


class Agent:
    """Runs until it is cancelled. `sleep` and the backoff's draw can be replaced for tests."""

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
    ) -> None:
        self._identity = identity
        self._primaries = list(primaries)
        self._memory = memory
        self._board = board
        self._runner = runner
        self._max_tasks = max_tasks
        self._drift = drift
        self._session: Session | None = None
        self._dial = dial
        self._backoff = backoff or Backoff()
        self._sleep = sleep

    async def run(self) -> None:
        """Connect, serve, reconnect, for ever. Raises SettingsError for what only this host can mend."""
        await self._board.started()
        async with trio.open_nursery() as nursery:
            if self._drift is not None:
                nursery.start_soon(self._drift.run, lambda: self._session)
            workers = Workers(self._runner, self._board, nursery, limit=self._max_tasks)
            while True:
                await self._round(workers)
                await self._sleep(self._backoff.next())

    async def _round(self, workers: Workers) -> None:
        """Try each address once, the one that served last first, until one has served."""
        problems = []
        for address in list(self._primaries):
            try:
                session = await self._connect(address, workers)
            except (LinkLost, ConnectionRefused, RemoteProtocolError) as error:
                text = str(error)
                problems.append(text if text.startswith(f"{address}: ") else f"{address}: {text}")
                continue
            self._primaries.remove(address)
            self._primaries.insert(0, address)
            reason = await self._serve(session, address, workers)
            await self._board.disconnected(f"{address}: {reason}")
            return
        await self._board.disconnected("; ".join(problems))

    async def _serve(self, session: Session, address: Address, workers: Workers) -> TrueupError:
        began = trio.current_time()
        try:
            await self._board.connected(address)
            self._session = session
            return await session.run()
        finally:
            self._session = None
            workers.abandon(session)
            await session.aclose()
            if trio.current_time() - began >= GOOD_SESSION:
                self._backoff.reset()

    async def _connect(self, address: Address, workers: Workers) -> Session:
        """Pair if that was never done, then open both connections of a session."""
        pin = self._identity.pin or await trio.to_thread.run_sync(self._memory.server)
        if await trio.to_thread.run_sync(self._memory.server) is None:
            pin = await self._pair(address)
        control, answer = await self._hello(address, pin, b"", CONTROL_TIMING, CONTROL_BACKLOG)
        try:
            await self._check_epoch(address, answer.epoch)
            bulk, _ = await self._hello(address, pin, answer.session, BULK_TIMING, 0)
        except BaseException:
            await control.aclose()
            raise
        session: Session

        def on_task(task: Work, channel: TaskChannel) -> None:
            # A primary that gives us work is a good one, however short the session: one that only makes
            # passes goes away after each.
            self._backoff.reset()
            workers.start(session, task, channel)

        def on_cancel(cancel: Cancel) -> None:
            workers.cancel(session, cancel)

        session = Session(
            Role.AGENT, control, bulk, on_task=on_task, on_cancel=on_cancel, protocol=answer.protocol
        )
        return session

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
        self, address: Address, pin: str | None, session: bytes, timing: Timing, backlog: int
    ) -> tuple[Link, HelloAck]:
        """Open one connection of a session and be accepted on it."""
        identity = self._identity
        dialled = await self._dial(address, SESSION_PREFACE, identity=self._memory.tls_dir, pin=pin)
        connection = Connection(Role.AGENT, Phase.HELLO)
        link = Link(dialled.stream, connection, timing=timing, backlog=backlog)
        statement = tls.hello_statement(
            dialled.fingerprint, tls.spki_fingerprint(identity.certificate), identity.node, session
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
            repair = f"if that stays so, `trueup node repair {identity.node}` at the primary, then join again"
            hint = repair if "certificate" in str(error) else None
            raise LinkLost(f"{address}: {error}", hint=hint) from None
        finally:
            if not accepted:
                await link.aclose()
        raise LinkLost(f"{address}: no answer to the hello within {HANDSHAKE_DEADLINE:g} seconds")

    async def _check_epoch(self, address: Address, epoch: int) -> None:
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
        """Without it there is no session; a disk that is full now may have room at the next attempt."""
        try:
            await trio.to_thread.run_sync(write, value)
        except SettingsError as error:
            raise LinkLost(f"{address}: {error}") from error
