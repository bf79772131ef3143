"""The lease as a commit: one without parents and without files, whose message says who holds it. Pure.

    trueup is led by a.example.org since epoch 7

    {"version":1,"holder":"…","host":"a.example.org","epoch":7,"beat":3,"renew":15.0,"released":false}

    Trueup-Key: <as in a commit of the status branch>
    Trueup-Signature: <base64 of Ed25519 over "trueup lease v1" and the line above, each ended by a line feed>

Equal leases are equal commits, of the same id: nothing in them is a time.
"""

import base64
import binascii
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature

from reconciler.errors import KeyMismatch, LeaseUnreadable
from reconciler.git.objects import LEASE_REF
from reconciler.keys import MasterKey
from reconciler.lease import VERSION, Lease
from reconciler.status.conditions import bounded
from reconciler.status.signature import KEY_TRAILER, SIGNATURE_TRAILER, trailers_of

MAX_SIZE: Final = 4096
"""Bytes of the commit; one has about 500."""

EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_LABEL: Final = "trueup lease v1"
_PERSON: Final = "trueup <trueup@localhost> 0 +0000"
_MEND: Final = (
    f"if no other primary is meant to work with this repository, start over with "
    f"`git push <repository> :{LEASE_REF}`"
)


def render(lease: Lease, key: MasterKey) -> bytes:
    """The commit object's content."""
    body = msgspec.json.encode(lease).decode()
    signature = base64.b64encode(key.signing_key.sign(_statement(body))).decode("ascii")
    who = f"led by {bounded(lease.host, 100)} since" if not lease.released else "led by nobody after"
    return (
        f"tree {EMPTY_TREE}\nauthor {_PERSON}\ncommitter {_PERSON}\n\n"
        f"trueup is {who} epoch {lease.epoch}\n\n{body}\n\n"
        f"{KEY_TRAILER}: {key.signing_fingerprint}\n{SIGNATURE_TRAILER}: {signature}\n"
    ).encode()


def parse(content: bytes, key: MasterKey) -> Lease:
    """The lease in a commit object. Raises KeyMismatch unless this installation's key signed it, and
    LeaseUnreadable for one of a version that is not known here."""
    message = content.decode("utf-8", "replace").partition("\n\n")[2]
    trailers = trailers_of(message)
    paragraphs = message.rstrip("\n").split("\n\n")
    if trailers is None or len(paragraphs) != 3:
        raise KeyMismatch(f"the lease {LEASE_REF} is not signed by trueup", hint=_MEND)
    fingerprint, signature = trailers
    if fingerprint != key.signing_fingerprint:
        raise KeyMismatch(
            f"the lease {LEASE_REF} was signed with another master key ({fingerprint[:16]}…, this one's"
            f" signing key is {key.signing_fingerprint[:16]}…): another installation works with this"
            " repository",
            hint=f"give both the same key (`trueup key show` tells keys apart); {_MEND}",
        )
    body = paragraphs[1]
    try:
        raw = base64.b64decode(signature.encode("ascii"), validate=True)
        key.signing_key.public_key().verify(raw, _statement(body))
    except (InvalidSignature, ValueError, binascii.Error):
        raise KeyMismatch(
            f"the lease {LEASE_REF} carries a signature that does not fit its content", hint=_MEND
        ) from None
    try:
        lease = msgspec.json.decode(body.encode(), type=Lease)
    except msgspec.DecodeError as error:
        problem = bounded(str(error))
        raise LeaseUnreadable(f"the lease {LEASE_REF} cannot be read: {problem}", hint=_MEND) from None
    if lease.version != VERSION or lease.renew <= 0:
        raise LeaseUnreadable(
            f"the lease {LEASE_REF} is of version {lease.version}, and this trueup knows {VERSION}",
            hint="update trueup here, or end the newer one that holds it",
        )
    return lease


def _statement(body: str) -> bytes:
    return f"{_LABEL}\n{body}\n".encode()
