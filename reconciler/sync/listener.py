"""The primary's front door: accepts connections, and gives each ten seconds to say who it is.

Nothing here trusts a peer. The number of connections that have not proved themselves is bounded, one
deadline covers preface, TLS and first message together, and no mistake of a peer leaves a traceback.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ssl import SSLContext

import trio

from agent.dial import HANDSHAKE_DEADLINE, PAIR_PREFACE, PREFACE_SIZE, SESSION_PREFACE, tune
from agent.errors import ProtocolError, SettingsError
from agent.link import BULK_TIMING, Link, LinkLost, lost_by
from agent.tlsstream import TLSStream, tls_alert
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import AnyMessage, HelloAck, PairAck
from reconciler.settings_values import Address
from reconciler.sync.handed import HandedStream
from reconciler.sync.places import NoPlace, Places

MAX_UNAUTHENTICATED = 64
"""Connections that may be proving who they are; a further one waits until one of them has."""

MAX_WAITING = 1024
"""Connections for which nothing was done yet. When all agents come at once, as after an outage, each is
served as soon as it can be, rather than closed and gone for half a minute."""

_LINGER = 1.0
"""Seconds that a refused peer has to read why, before the connection is torn down under it."""

_log = logging.getLogger("trueup.sync")


@dataclass(frozen=True, slots=True)
class Caller:
    """A peer whose first message is there, and which is not yet believed."""

    link: Link
    message: AnyMessage
    certificate: bytes | None
    """What the TLS handshake proved, in DER; None on a pairing connection."""
    peer: str
    """Its network address, for logs."""
    linger: Callable[[], Awaitable[None]]
    """Let it read a refusal before the connection is closed."""


Continue = Callable[[], Awaitable[None]]
"""What happens on a connection once its peer was believed."""

Judge = Callable[[Caller], Awaitable[Continue | None]]
"""Decides about a caller and answers it; None if it was refused."""

Contexts = Callable[[Phase], SSLContext]
"""The TLS context for a connection that starts in PAIRING or HELLO."""

HandOver = Callable[[trio.SocketStream], HandedStream | None]
"""Gives a session's connection to a worker process; None: TLS ends here."""


class Listener:
    """Takes connections for a hub. `judge` runs within the deadline, what it returns without."""

    def __init__(self, contexts: Contexts, judge: Judge, hand_over: HandOver = lambda _: None) -> None:
        self._contexts = contexts
        self._judge = judge
        self._hand_over = hand_over
        self._places = Places(MAX_UNAUTHENTICATED, waiting=MAX_WAITING)

    async def serve(self, transport: trio.SocketStream) -> None:
        """One connection from accept to end; closes it, and raises nothing because of the peer."""
        peer = _peer(transport)
        opened: list[trio.abc.AsyncResource] = [transport]
        proceed = None
        met = False
        try:
            with trio.move_on_after(HANDSHAKE_DEADLINE) as deadline:
                async with self._places.take():
                    met = True
                    proceed = await self._meet(transport, peer, opened)
            if deadline.cancelled_caught:
                why = "no valid hello within 10 seconds" if met else "too many others came as well"
                _log.warning("closed a connection from %s: %s", peer, why)
        except NoPlace:
            _log.warning("closed a connection from %s: too many others came as well", peer)
        except LinkLost as error:
            _log.info("lost a connection from %s: %s", peer, error)
        except ProtocolError as error:
            _log.warning("closed a connection from %s: %s", peer, error)
        except Exception:
            # A mistake of ours in serving one peer must not close the door for all.
            _log.exception("closed a connection from %s because of a mistake in trueup", peer)
        finally:
            if proceed is None:
                await _close(opened)
        if proceed is None:
            return
        try:
            await proceed()
        except (LinkLost, ProtocolError) as error:
            _log.info("lost a connection from %s: %s", peer, error)
        except Exception:
            _log.exception("closed a connection from %s because of a mistake in trueup", peer)
        finally:
            await _close(opened)

    async def _meet(
        self, transport: trio.SocketStream, peer: str, opened: list[trio.abc.AsyncResource]
    ) -> Continue | None:
        try:
            tune(transport)
        except OSError:
            raise LinkLost("it was gone at once") from None
        phase = await _read_preface(transport)
        if phase is None:
            _log.info("closed a connection from %s: it does not speak this protocol", peer)
            return None
        handed = self._hand_over(transport) if phase is Phase.HELLO else None
        stream = handed or TLSStream(transport, self._contexts(phase), server_side=True)
        opened.append(stream)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            _log.warning("refused a connection from %s: %s", peer, _handshake_problem(error))
            await _linger(transport)
            return None
        certificate = stream.peer_certificate if phase is Phase.HELLO else None
        link = Link(stream, Connection(Role.PRIMARY, phase), timing=BULK_TIMING)
        message = await link.read()
        return await self._judge(Caller(link, message, certificate, peer, lambda: _linger(transport, handed)))


async def refuse(caller: Caller, answer: PairAck | HelloAck) -> None:
    """Say no, in the log and to the peer, and let it read that."""
    _log.warning("refused %s: %s: %s", caller.peer, answer.reason, answer.message)
    await caller.link.write(answer)
    await caller.linger()


async def open_listeners(address: Address) -> list[trio.SocketListener]:
    """Listen on every address of the machine where no host is given; SettingsError if that fails."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise SettingsError(f"SYNC_TCP_ADDR: cannot listen on {address}: {error.strerror or error}") from None


async def _read_preface(transport: trio.SocketStream) -> Phase | None:
    """What the connection is for; reads no byte more, because TLS follows."""
    preface = b""
    while len(preface) < PREFACE_SIZE:
        try:
            data = await transport.receive_some(PREFACE_SIZE - len(preface))
        except trio.BrokenResourceError as error:
            raise lost_by(error) from None
        preface += data
        # Whatever cannot become a preface any more is turned away at its first wrong byte.
        if not data or not (PAIR_PREFACE.startswith(preface) or SESSION_PREFACE.startswith(preface)):
            return None
    return Phase.PAIRING if preface == PAIR_PREFACE else Phase.HELLO


async def _close(opened: list[trio.abc.AsyncResource]) -> None:
    for each in reversed(opened):
        await trio.aclose_forcefully(each)


async def _linger(transport: trio.SocketStream, handed: HandedStream | None = None) -> None:
    # Closing a socket that has unread bytes resets it, and the peer may lose what we said last.
    with trio.move_on_after(_LINGER):
        try:
            if handed is not None:
                await handed.flush()
            await transport.send_eof()
            while await transport.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


def _handshake_problem(error: trio.BrokenResourceError) -> str:
    alert = tls_alert(error)
    if alert is not None:
        return f"it ended the TLS handshake ({alert.lower().replace('_', ' ')})"
    reason = str(getattr(error.__cause__, "reason", "") or "")
    if reason == "CERTIFICATE_VERIFY_FAILED":
        detail = getattr(error.__cause__, "verify_message", "")
        return f"its certificate is not enrolled or not valid ({detail})"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it showed no certificate"
    return f"TLS failed ({reason.lower().replace('_', ' ') or 'it broke off'})"


def _peer(transport: trio.SocketStream) -> str:
    try:
        host, port, *_ = transport.socket.getpeername()
    except OSError:
        return "a peer that is gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
