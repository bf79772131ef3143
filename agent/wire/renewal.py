"""Messages of a session about another certificate for its agent; docs/wire-protocol.md has their order."""

from agent.wire.base import Message


class RenewCertificate(Message, frozen=True, kw_only=True, tag="renew_certificate"):
    """Primary to agent: make another key with its certificate, and offer it."""


class CertificateOffer(Message, frozen=True, kw_only=True, tag="certificate_offer"):
    """Agent to primary: this certificate shall be mine too, and in place of the other once I have used it.

    `signature` is by the node's token over `tls.renewal_statement(...)`.
    """

    certificate: bytes
    """DER."""
    signature: bytes


class CertificateAnswer(Message, frozen=True, kw_only=True, tag="certificate_answer"):
    """Primary to agent: whether the certificate that was offered is recorded."""

    fingerprint: str
    """Of the key that was offered."""
    accepted: bool
    reason: str = ""
    message: str = ""
