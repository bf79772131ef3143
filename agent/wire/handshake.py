"""The messages before a session: frozen for ever, as they are read before a version was agreed upon."""

from agent.wire.base import Message


class PairRequest(Message, frozen=True, kw_only=True, tag="pair"):
    """Agent to primary on a pairing connection: this certificate shall be mine.

    `signature` is by the node's token over `tls.pairing_statement(...)`.
    """

    node: str
    certificate: bytes
    """DER."""
    pinned: bool
    """Whether the agent knew the primary's fingerprint beforehand; if not, it trusted the one it saw."""
    signature: bytes
    agent_version: str


class PairAck(Message, frozen=True, kw_only=True, tag="pair_ack"):
    accepted: bool
    reason: str = ""
    message: str = ""


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First message of each session connection, agent to primary, signed by the node's token.

    `session` is empty on the control connection; on a bulk connection it is the id that
    `HelloAck` gave on the control connection to which it belongs.
    """

    node: str
    protocols: tuple[int, ...]
    agent_version: str
    session: bytes = b""
    signature: bytes


class HelloAck(Message, frozen=True, kw_only=True, tag="hello_ack"):
    """Only this message means connected: in TLS 1.3 the client cannot see that it was refused before."""

    accepted: bool
    reason: str = ""
    message: str = ""
    protocol: int = 0
    session: bytes = b""
    epoch: int = 0
    """The primary's fencing epoch; an agent refuses one that is older than the newest it has seen."""
