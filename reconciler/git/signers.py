"""Who may sign: a file with lines of ssh's allowed_signers, armored PGP public keys, or both. Pure.

Only what is not understood is refused here; whether a key may be used for this signature at that time is
for ssh-keygen and gpg to say.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from reconciler.errors import TrueupError

MAX_SIGNERS: Final = 1024 * 1024
"""Bytes of a file of signers."""

UNREADABLE: Final = "its signature cannot be read"

_PGP: Final = re.compile(
    r"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t\r]*\n.*?^-----END PGP PUBLIC KEY BLOCK-----[ \t\r]*$",
    re.MULTILINE | re.DOTALL,
)
_SSH_KEY: Final = re.compile(r"\s((?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+)\s+([A-Za-z0-9+/]+={0,2})(?:\s|$)")


class SignatureInvalid(TrueupError):
    """A tag or commit is not signed by anybody who may: sign it, or allow its signer."""

    reason = "SignatureInvalid"


@dataclass(frozen=True, slots=True)
class Signers:
    """Lines for ssh and armored keys for gpg; `digest` is of the whole file, `path` where it is."""

    path: str
    ssh: str
    pgp: tuple[str, ...]
    digest: str


def parse_signers(path: str, content: bytes | None) -> Signers:
    """The signers in the file `path` of the spec repository, None: it is not there.

    Raises SignatureInvalid for a file that is missing, empty or not understood: then nobody may sign.
    """
    if content is None:
        raise _unusable(path, "is not in the spec repository", "add it")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text", "export PGP keys with --armor") from None
    pgp = [match[0] for match in _PGP.finditer(text)]
    # What is cut out leaves its lines behind, so that the numbers of the others stay right.
    rest = _PGP.sub(lambda match: "\n" * match[0].count("\n"), text)
    for number, line in enumerate(rest.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and not _is_signer(line):
            raise _unusable(
                path,
                f"cannot be read at line {number}",
                "a line is `PRINCIPALS [OPTIONS] KEYTYPE KEY`, or part of an armored PGP public key",
            )
    ssh = "".join(
        f"{line}\n" for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")
    )
    if not (ssh or pgp):
        raise _unusable(path, "names nobody", "add the keys of those who may sign")
    return Signers(path, ssh, tuple(pgp), hashlib.sha256(content).hexdigest())


def _is_signer(line: str) -> bool:
    """Whether a line ends in an ssh public key whose type is the one that it says."""
    found = _SSH_KEY.search(line)
    if found is None or line[:1].isspace():
        return False
    try:
        blob = base64.b64decode(found[2], validate=True)
    except (binascii.Error, ValueError):
        return False
    kind = found[1].encode()
    return blob.startswith(len(kind).to_bytes(4) + kind)


def _unusable(path: str, what: str, hint: str) -> SignatureInvalid:
    return SignatureInvalid(f"the file of allowed signers {path} {what}", hint=hint)


_PGP_SAYS: Final = (
    ("BADSIG", "its signature does not match its content"),
    ("REVKEYSIG", "its PGP key {key} has been revoked"),
    ("EXPKEYSIG", "its PGP key {key} has expired"),
    ("EXPSIG", "its signature has expired"),
    ("NO_PUBKEY", "it is signed with the PGP key {key}, which is not in {path}"),
    ("ERRSIG", "its PGP signature by the key {key} cannot be checked"),
)
_SSH_SAYS: Final = (
    (r"Signature verification failed|incorrect signature", "its signature does not match its content"),
    (r"namespace does not match", "its signature was made for something else than git"),
    (r"key has expired", "its ssh key had expired by then, as {path} has it"),
    (r"key is not yet valid", "its ssh key was not valid yet, as {path} has it"),
    (r"not permitted for use in signature namespace", "its ssh key may not sign for git, as {path} has it"),
    (r"(?:with \S+ key )(?P<key>SHA256:\S+)", "it is signed with the ssh key {key}, which is not in {path}"),
)


def why_invalid(said: str, path: str) -> str:
    """What git, gpg and ssh-keygen said of a signature that they did not accept, in our words."""
    for token, text in _PGP_SAYS:
        if (found := re.search(rf"^\[GNUPG:\] {token}(?: ([0-9A-F]+))?", said, re.MULTILINE)) is not None:
            return text.format(key=found[1] or "", path=path)
    if not said.strip() or "no signature found" in said:
        return "it is not signed"
    for pattern, text in _SSH_SAYS:
        if (match := re.search(pattern, said)) is not None:
            return text.format(key=match.groupdict().get("key", ""), path=path)
    return UNREADABLE
