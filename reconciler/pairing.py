"""Between the agents' hub and git: who may connect comes from there, who has paired goes there. Pure."""

from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent import tls
from reconciler.control.state import ControlState
from reconciler.spec.model import Spec
from reconciler.status.conditions import ConditionType, Reason, set_condition, whole_second
from reconciler.status.documents import NodeStatus, Recorded
from reconciler.sync.enrolment import Enrolment


def enrolments(spec: Spec, recorded: Recorded, control: ControlState) -> list[Enrolment]:
    """The nodes of the spec that are not revoked, each with the certificate that it paired with."""
    found: list[Enrolment] = []
    for name, node in spec.nodes.items():
        if control.revocation_of(name, node.token_key) is not None:
            continue
        status = recorded.nodes.get(f"nodes/{name}")
        found.append(
            Enrolment(
                node=name,
                token_key=node.token_key,
                pin=node.fingerprint,
                certificate_der=certificate_der(status) if status is not None else None,
                next_der=_der(status.next_certificate) if status is not None else None,
                made_at=_token_age_start(status, node.token_key),
            )
        )
    return found


def _token_age_start(status: NodeStatus | None, token_key: str) -> float | None:
    """When this token was first seen in the spec; None as long as no pass has recorded that."""
    if status is None or status.token_since is None or status.token_key != token_key:
        return None
    return status.token_since.timestamp()


def certificate_der(status: NodeStatus) -> bytes | None:
    """The certificate that a node paired with; None: not paired.

    One that cannot be read is given back as it is: it fits no agent, so that nobody can connect or pair
    again as this node until an operator says so with `trueup node repair`.
    """
    return _der(status.certificate)


def _der(pem: str) -> bytes | None:
    if not pem:
        return None
    try:
        return tls.to_der(x509.load_pem_x509_certificate(pem.encode()))
    except ValueError:
        return pem.encode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def with_pairing(
    recorded: Recorded, node: str, der: bytes, *, trust_on_first_use: bool, now: datetime
) -> Recorded:
    """The documents after a node has paired with this certificate."""
    certificate = tls.load_certificate(der)
    status = recorded.nodes.get(f"nodes/{node}") or NodeStatus(id=f"nodes/{node}")
    reason = Reason.TRUST_ON_FIRST_USE if trust_on_first_use else Reason.PAIRED
    message = (
        "it joined without --pin: a man in the middle could not have been noticed"
        if trust_on_first_use
        else ""
    )
    return recorded.put(
        msgspec.structs.replace(
            status,
            certificate=_pem(certificate),
            next_certificate="",
            fingerprint=tls.spki_fingerprint(certificate),
            paired_at=whole_second(now),
            trust_on_first_use=trust_on_first_use,
            conditions=set_condition(
                status.conditions, ConditionType.PAIRED, "True", reason, message, now=now
            ),
        )
    )


def with_renewal(recorded: Recorded, node: str, der: bytes, *, used: bool) -> Recorded:
    """The documents after a node's agent has offered this certificate, or has used it for the first time.

    Nothing changes for a node that was unpaired meanwhile, or where another certificate is to follow by now.
    """
    status = recorded.nodes.get(f"nodes/{node}")
    if status is None or not status.certificate:
        return recorded
    certificate = tls.load_certificate(der)
    if not used:
        return recorded.put(msgspec.structs.replace(status, next_certificate=_pem(certificate)))
    if _der(status.next_certificate) != der:
        return recorded
    fingerprint = tls.spki_fingerprint(certificate)
    return recorded.put(
        msgspec.structs.replace(
            status, certificate=_pem(certificate), next_certificate="", fingerprint=fingerprint
        )
    )


def without_pairing(recorded: Recorded, node: str, *, now: datetime) -> Recorded:
    """The documents with a node's certificate forgotten; its token counts as new from now on."""
    status = recorded.nodes.get(f"nodes/{node}")
    if status is None:
        return recorded
    message = "its certificate was forgotten on purpose; it may join again"
    return recorded.put(
        msgspec.structs.replace(
            status,
            certificate="",
            next_certificate="",
            fingerprint="",
            paired_at=None,
            trust_on_first_use=False,
            token_since=None,
            token_key="",
            conditions=set_condition(
                status.conditions, ConditionType.PAIRED, "False", Reason.AWAITING_PAIRING, message, now=now
            ),
        )
    )
