"""Pairing: the agent asks a primary to accept its certificate for a node from now on."""

import trio
from cryptography.x509 import Certificate

from agent import tls
from agent.address import Address
from agent.dial import HANDSHAKE_DEADLINE, PAIR_PREFACE, Dial, dial
from agent.errors import ConnectionRefused
from agent.link import CONTROL_TIMING, Link, LinkLost
from agent.node_token import NodeToken
from agent.version import agent_version
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import PairAck, PairRequest

RECORD_DEADLINE = 120.0
"""Seconds that a primary may take to record the pairing in git before it answers."""


class TokenRefused(ConnectionRefused):
    """The primary does not know the node by this token; perhaps not yet, as it hears of nodes with a pass."""


async def pair(
    address: Address,
    *,
    node: str,
    certificate: Certificate,
    token: NodeToken,
    pin: str | None,
    dial: Dial = dial,
) -> str:
    """Pair at one address; gives the fingerprint of the primary that accepted.

    Raises LinkLost if it cannot be reached or does not answer, ConnectionRefused, with the primary's
    own reason, if it says no or is not the one that `pin` names, TokenRefused if it does not know the
    token. Without a pin the primary that answers is trusted, and told so.
    """
    dialled = await dial(address, PAIR_PREFACE, identity=None, pin=pin)
    link = Link(dialled.stream, Connection(Role.AGENT, Phase.PAIRING), timing=CONTROL_TIMING)
    statement = tls.pairing_statement(
        dialled.fingerprint, tls.spki_fingerprint(certificate), node, pin is not None
    )
    request = PairRequest(
        node=node,
        certificate=tls.to_der(certificate),
        pinned=pin is not None,
        signature=token.sign(statement),
        agent_version=agent_version(),
    )
    answer = None
    try:
        with trio.move_on_after(HANDSHAKE_DEADLINE + RECORD_DEADLINE):
            await link.write(request)
            answer = await link.read()
    except LinkLost as error:
        raise LinkLost(f"{address}: {error}") from None
    finally:
        await link.aclose()
    if not isinstance(answer, PairAck):
        raise LinkLost(f"{address}: the primary did not answer the pairing request")
    if not answer.accepted:
        refused = TokenRefused if answer.reason == "TokenRefused" else ConnectionRefused
        raise refused(f"{address}: pairing refused ({answer.reason}): {answer.message}")
    return dialled.fingerprint
