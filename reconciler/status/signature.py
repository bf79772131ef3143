"""The signature of a status commit: who wrote a tree, and after which commit. Pure.

The last paragraph of the message holds trailers:

    Trueup-Key: <SHA-256 of the signing key's SPKI, lower-case hex>
    Trueup-Signature: <base64 of Ed25519 over the statement>

and before them `Trueup-Trace` with the id of each request that it follows from.

The statement is three lines, each ended by a line feed: `trueup status v1`, the tree's id, the parent's
id (an empty line for the first commit). docs/status.md shows how to verify one by hand.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature

from reconciler.errors import KeyMismatch
from reconciler.git.objects import CommitObject
from reconciler.keys import MasterKey

LABEL: Final = "trueup status v1"
KEY_TRAILER: Final = "Trueup-Key"
SIGNATURE_TRAILER: Final = "Trueup-Signature"
TRACE_TRAILER: Final = "Trueup-Trace"


def statement(tree: str, parent: str | None) -> bytes:
    """What is signed: that this tree follows this parent."""
    return f"{LABEL}\n{tree}\n{parent or ''}\n".encode("ascii")


def signed_message(
    message: str, key: MasterKey, *, tree: str, parent: str | None, traces: Iterable[str] = ()
) -> str:
    """A commit message with the trailers put behind it. Who may write them says what caused it: unsigned."""
    told = "".join(f"{TRACE_TRAILER}: {trace}\n" for trace in traces)
    signature = base64.b64encode(key.signing_key.sign(statement(tree, parent))).decode("ascii")
    proven = f"{KEY_TRAILER}: {key.signing_fingerprint}\n{SIGNATURE_TRAILER}: {signature}\n"
    return f"{message.strip()}\n\n{told}{proven}"


def verify(commit: CommitObject, key: MasterKey, *, branch: str) -> None:
    """Returns if `key` signed this commit's tree and parent; raises KeyMismatch, with what to do, if not."""
    what = f"the status branch {branch} at {commit.oid[:12]}"
    start_over = f"or start over by deleting the branch: `git push <repository> :refs/heads/{branch}`"
    mend = f"set the branch back to the last commit that trueup signed, {start_over}"
    trailers = trailers_of(commit.message)
    if trailers is None or len(commit.parents) > 1:
        raise KeyMismatch(f"{what} is not signed by trueup", hint=mend)
    fingerprint, signature = trailers
    if fingerprint != key.signing_fingerprint:
        raise KeyMismatch(
            f"{what} was signed with another master key ({fingerprint[:16]}…, this one's signing key is"
            f" {key.signing_fingerprint[:16]}…)",
            hint=f"use the key it was signed with (`trueup key show` tells keys apart), {start_over}",
        )
    parent = commit.parents[0] if commit.parents else None
    try:
        raw = base64.b64decode(signature.encode("ascii"), validate=True)
        key.signing_key.public_key().verify(raw, statement(commit.tree, parent))
    except (InvalidSignature, ValueError, binascii.Error):
        raise KeyMismatch(f"{what} carries a signature that does not fit its content", hint=mend) from None


def trailers_of(message: str) -> tuple[str, str] | None:
    """Fingerprint and signature from the last paragraph, if it holds each of them once."""
    paragraph = message.rstrip("\n").rpartition("\n\n")[2]
    lines = [line.partition(": ") for line in paragraph.split("\n")]
    keys = [value for name, _, value in lines if name == KEY_TRAILER]
    signatures = [value for name, _, value in lines if name == SIGNATURE_TRAILER]
    return (keys[0], signatures[0]) if len(keys) == len(signatures) == 1 else None
