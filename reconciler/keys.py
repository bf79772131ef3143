"""The master key: 32 random bytes from which every other key of an installation is derived.

Written `trueup-master-1:<base64>`. HKDF-SHA256 (RFC 5869, no salt) with a label for each purpose gives
the hash key, the primary's TLS key and the key that signs status commits, so that a successor on a
new machine that was given the master key has the same fingerprints. The labels never change: other
labels are other keys.
"""

import base64
import binascii
import hashlib
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from reconciler.errors import SettingsError
from reconciler.secrets.values import Secret

log = logging.getLogger(__name__)

PREFIX: Final = "trueup-master-1:"
SIZE: Final = 32
"""Bytes of the master key and of each key derived from it."""

KEY_ID_BYTES: Final = 4
MAX_TEXT: Final = 4096
"""A key file has about 60 bytes; more than this is another file."""

_HASH_LABEL: Final = b"trueup v1 hash key"
_TLS_LABEL: Final = b"trueup v1 primary tls key"
_SIGNING_LABEL: Final = b"trueup v1 status signing key"
_ID_LABEL: Final = b"trueup v1 key id"


class MasterKey:
    """One installation's root of trust. No `repr`, `str`, pickle or copy gives it away."""

    __slots__ = ("__seed", "hash_key", "key_id", "signing_key", "tls_key")

    key_id: str
    """8 hex digits that name the key in config hashes; derived, so that they say nothing about it."""
    hash_key: bytes
    """For HMAC fingerprints of secret values (`reconciler.hashing.fingerprint`)."""
    tls_key: Ed25519PrivateKey
    """The primary's key towards agents."""
    signing_key: Ed25519PrivateKey
    """Signs the commits of the status branch."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SIZE:
            raise ValueError(f"a master key has {SIZE} bytes")
        self.__seed = seed
        self.hash_key = _derive(seed, _HASH_LABEL, SIZE)
        self.tls_key = Ed25519PrivateKey.from_private_bytes(_derive(seed, _TLS_LABEL, SIZE))
        self.signing_key = Ed25519PrivateKey.from_private_bytes(_derive(seed, _SIGNING_LABEL, SIZE))
        self.key_id = _derive(seed, _ID_LABEL, KEY_ID_BYTES).hex()

    @classmethod
    def generate(cls) -> "MasterKey":
        return cls(secrets.token_bytes(SIZE))

    @classmethod
    def from_text(cls, text: str, *, where: str = "TRUEUP_MASTER_KEY") -> "MasterKey":
        """The key in `text`, white space around it aside; SettingsError names `where`, never the text."""
        seed = _seed_in(text.strip())
        del text  # A damaged key may be most of one: it stands in no frame that an error goes through.
        if isinstance(seed, bytes):
            return cls(seed)
        hint = f"it reads {PREFIX}<44 characters of base64>; make one with `trueup key new`"
        raise SettingsError(f"{where} {seed}", hint=hint)

    def to_text(self) -> str:
        """The text to back up. The only way out of this type."""
        return PREFIX + base64.b64encode(self.__seed).decode("ascii")

    @property
    def tls_fingerprint(self) -> str:
        """What agents pin: SHA-256 of the TLS key's SPKI, lower-case hex."""
        return public_fingerprint(self.tls_key.public_key())

    @property
    def signing_fingerprint(self) -> str:
        """What status commits name in `Trueup-Key:`: SHA-256 of the signing key's SPKI, lower-case hex."""
        return public_fingerprint(self.signing_key.public_key())

    @property
    def signing_public_text(self) -> str:
        """The public half of the signing key as `ed25519:<base64>`, for verifying by hand."""
        raw = self.signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return "ed25519:" + base64.b64encode(raw).decode("ascii")

    def __repr__(self) -> str:
        return f"MasterKey(key_id={self.key_id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MasterKey) and secrets.compare_digest(self.__seed, other.__seed)

    def __hash__(self) -> int:
        return hash((MasterKey, self.key_id))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a master key cannot be pickled or copied")


def public_fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's SPKI (DER), lower-case hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def write_key_file(path: Path, key: MasterKey) -> None:
    """Puts the key into a new file that only its owner can read, and makes it durable.

    Raises SettingsError where something stands there already (a key that is overwritten is lost for
    ever) or where the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SettingsError(
            f"{path} exists and will not be overwritten", hint="move it away first if you mean to start over"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
    try:
        # A umask can only take bits away; whatever it took from the owner is given back here.
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(key.to_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None


def read_key_file(path: Path) -> MasterKey:
    """The key that `write_key_file` or a person put there. SettingsError where there is none to read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT + 1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        raise SettingsError(
            f"there is no master key at {path}", hint="make one with `trueup key new`, or restore your backup"
        ) from None
    except OSError as error:
        raise SettingsError(f"the master key at {path} cannot be read: {error.strerror}") from None
    size, text = len(content), Secret(content.decode("ascii", errors="replace"))
    del content
    if size > MAX_TEXT:
        raise SettingsError(f"{path} is too large for a master key", hint="name the file that holds the key")
    if mode & 0o077:
        log.warning("%s is open to other users (mode %04o); run: chmod 600 %s", path, mode, path)
    return MasterKey.from_text(text.reveal(), where=str(path))


def _seed_in(text: str) -> bytes | str:
    """The seed, or what is wrong with the text."""
    if not text:
        return "is empty"
    if not text.startswith(PREFIX):
        return "does not hold a trueup master key"
    try:
        seed = base64.b64decode(text.removeprefix(PREFIX).encode(), validate=True)
    except (ValueError, binascii.Error):
        return "holds a damaged master key"
    return seed if len(seed) == SIZE else f"holds a master key of {len(seed)} bytes, not {SIZE}"


def _derive(seed: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(seed)
