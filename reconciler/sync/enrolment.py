"""Who may connect: the judgement over a pairing request or a hello, pure.

The spec names a node's token key and an optional pin; the status branch has the certificate that was
paired. Every refusal has a reason that is stable and a text that says who must do what.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from cryptography.exceptions import InvalidSignature

from agent import tls
from agent.errors import ConnectionRefused, SettingsError
from agent.node_token import parse_token_key
from agent.wire.messages import PROTOCOL_VERSIONS, Hello, PairRequest
from agent.wire.renewal import CertificateOffer

TOKEN_LIFETIME = 24 * 3600.0
"""Seconds after which a join token that was never used pairs no more."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the primary knows of one node.

    `pin` is the SHA-256 of the agent's public key (SPKI), lower-case hex. `certificate_der` is the one
    that was paired, None before. `made_at` is when the token was made, in seconds since the epoch; None
    where that is not recorded, and then the token does not expire.
    """

    node: str
    token_key: str
    pin: str | None = None
    certificate_der: bytes | None = None
    next_der: bytes | None = None
    """The certificate that is to follow it: accepted as well, and alone once it was used."""
    made_at: float | None = None

    def accepted(self) -> tuple[bytes, ...]:
        """The certificates with which its agent may come."""
        return tuple(der for der in (self.certificate_der, self.next_der) if der is not None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a peer is turned away, in words for its log and for ours."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Roster:
    """All enrolments, indexed for the two questions that connections ask."""

    by_node: Mapping[str, Enrolment] = field(default_factory=dict)
    by_certificate: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the certificate -> node."""

    @classmethod
    def of(cls, enrolments: Iterable[Enrolment]) -> "Roster":
        by_node = {enrolment.node: enrolment for enrolment in enrolments}
        by_certificate = {
            tls.der_hash(der): node for node, enrolment in by_node.items() for der in enrolment.accepted()
        }
        return cls(by_node, by_certificate)

    def anchors(self) -> list[bytes]:
        """Every enrolled certificate, in DER, save those that are none: one must not keep out the others."""
        found = (der for enrolment in self.by_node.values() for der in enrolment.accepted())
        return [certificate for certificate in found if _readable(certificate)]

    def holder(self, certificate: bytes | None) -> str | None:
        """The node whose certificate this is, byte for byte."""
        return None if certificate is None else self.by_certificate.get(tls.der_hash(certificate))


def judge_pairing(
    request: PairRequest, enrolment: Enrolment | None, *, server_fp: str, now: float
) -> Refusal | None:
    """Whether a pairing request is accepted (None). `now` is in seconds since the epoch.

    The signature comes first: who cannot sign learns nothing about the node but that. A node that the
    spec does not name is answered in the same words.
    """
    node = request.node
    unsigned = Refusal(
        "TokenRefused",
        f"the token does not belong to a node {node[:64]!r} of the spec, or somebody stands between agent and"
        f" primary: check node and fingerprint, give a node that is new a pass to become known (`--wait`), or"
        f" make a new token with `trueup node rotate-token`",
    )
    try:
        certificate = tls.load_certificate(request.certificate)
    except ConnectionRefused as error:
        return Refusal("CertificateRefused", error.message)
    agent_fp = tls.spki_fingerprint(certificate)
    statement = tls.pairing_statement(server_fp, agent_fp, node, request.pinned)
    if enrolment is None or not _signed(enrolment, request.signature, statement):
        return unsigned
    if enrolment.pin is not None and enrolment.pin != agent_fp:
        return Refusal(
            "FingerprintRefused",
            f"the spec pins the node {node!r} to another key: set nodes.{node}.fingerprint to {agent_fp}"
            " or to null",
        )
    if enrolment.certificate_der is not None:
        if enrolment.certificate_der == request.certificate:
            return None  # the same agent again: its first answer was lost
        return Refusal(
            "AlreadyPaired",
            f"the node {node!r} is paired with another certificate: `trueup node repair {node}` lets it pair"
            " again",
        )
    if enrolment.made_at is not None and now - enrolment.made_at > TOKEN_LIFETIME:
        return Refusal(
            "TokenExpired",
            f"the token of the node {node!r} was not used within 24 hours: `trueup node rotate-token {node}`"
            " makes a new one",
        )
    try:
        tls.check_agent_certificate(request.certificate, node)
    except ConnectionRefused as error:
        return Refusal("CertificateRefused", error.message)
    return None


def judge_hello(hello: Hello, certificate: bytes | None, roster: Roster, *, server_fp: str) -> Refusal | None:
    """Whether a hello is accepted (None); `certificate` is the one the TLS handshake proved."""
    holder = roster.holder(certificate)
    if holder is None or certificate is None:
        return Refusal(
            "CertificateRefused",
            "this certificate is not enrolled: `trueup node repair` with this node's name, or where it was"
            " revoked `trueup node rotate-token`, and join again",
        )
    if holder != hello.node:
        return Refusal("CertificateRefused", "this certificate belongs to another node")
    enrolment = roster.by_node[holder]
    agent_fp = tls.spki_fingerprint(tls.load_certificate(certificate))
    if enrolment.pin is not None and enrolment.pin != agent_fp:
        return Refusal("FingerprintRefused", f"the spec pins the node {holder!r} to another key")
    statement = tls.hello_statement(server_fp, agent_fp, holder, hello.session)
    if not _signed(enrolment, hello.signature, statement):
        return Refusal(
            "TokenRefused",
            f"the token of the node {holder!r} is not the one in the spec (was it rotated?): join again with"
            " the new one",
        )
    if shared_protocol(hello.protocols) is None:
        return Refusal(
            "ProtocolUnsupported",
            f"agent and primary share no version of the protocol (this primary speaks"
            f" {', '.join(map(str, PROTOCOL_VERSIONS))}): update the older one",
        )
    return None


def judge_offer(
    offer: CertificateOffer, enrolment: Enrolment | None, shown: bytes, *, server_fp: str
) -> Refusal | None:
    """Whether a certificate is accepted besides the one that was `shown` when its session began (None)."""
    if enrolment is None or shown not in enrolment.accepted():
        return Refusal("CertificateRefused", "the certificate of this session is not enrolled any more")
    agent_fp = tls.spki_fingerprint(tls.load_certificate(shown))
    statement = tls.renewal_statement(server_fp, agent_fp, enrolment.node, offer.certificate)
    if not _signed(enrolment, offer.signature, statement):
        return Refusal("TokenRefused", "the offer is not signed by the token of this node")
    if enrolment.pin is not None:
        return Refusal(
            "FingerprintRefused",
            f"the spec pins the node {enrolment.node!r} to its key: set nodes.{enrolment.node}.fingerprint to"
            " null, renew the certificate, and pin it again",
        )
    try:
        tls.check_agent_certificate(offer.certificate, enrolment.node)
    except ConnectionRefused as error:
        return Refusal("CertificateRefused", error.message)
    return None


def shared_protocol(theirs: Iterable[int]) -> int | None:
    """The newest version of the protocol that both sides speak."""
    return max(set(theirs) & set(PROTOCOL_VERSIONS), default=None)


def _signed(enrolment: Enrolment, signature: bytes, statement: bytes) -> bool:
    try:
        parse_token_key(enrolment.token_key).verify(signature, statement)
    except (InvalidSignature, SettingsError):
        return False
    return True


def _readable(certificate: bytes | None) -> TypeGuard[bytes]:
    if certificate is None:
        return False
    try:
        tls.load_certificate(certificate)
    except ConnectionRefused:
        return False
    return True
