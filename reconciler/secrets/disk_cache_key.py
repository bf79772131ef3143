"""The key of the cache on disk: random, of its own, replaced at will. Without it the cache is noise.

Written `trueup-cache-1:<base64>`. HKDF-SHA256 gives one key that seals, one that names files and
one that marks credentials.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from reconciler.errors import SettingsError
from reconciler.secrets.values import Secret

log = logging.getLogger(__name__)

PREFIX: Final = "trueup-cache-1:"
SIZE: Final = 32
MAX_TEXT: Final = 4096

_HINT: Final = f"it reads {PREFIX} and what `openssl rand -base64 32` prints"
_SEALING_LABEL: Final = b"trueup v1 secret cache sealing"
_NAMES_LABEL: Final = b"trueup v1 secret cache names"
_MARKS_LABEL: Final = b"trueup v1 secret cache credentials"
_NONCE: Final = 12


class DiskCacheKey:
    """Seals, opens and names what the cache writes. No `repr`, `str`, pickle or copy gives it away."""

    __slots__ = ("__marks", "__names", "__sealing")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SIZE:
            raise ValueError(f"a cache key has {SIZE} bytes")
        self.__sealing = AESGCM(_derive(seed, _SEALING_LABEL))
        self.__names = _derive(seed, _NAMES_LABEL)
        self.__marks = _derive(seed, _MARKS_LABEL)

    @classmethod
    def from_text(cls, text: str, *, where: str = "TRUEUP_SECRET_CACHE_KEY") -> "DiskCacheKey":
        """The key in `text`; SettingsError names `where`, never the text."""
        seed = _seed_in(text.strip())
        del text  # no plain text in a frame that an error goes through
        if isinstance(seed, str):
            raise SettingsError(f"{where} {seed}", hint=_HINT)
        return cls(seed)

    def name(self, question: bytes) -> str:
        """A file's name for a question, which says nothing about it."""
        return hmac.new(self.__names, question, hashlib.sha256).hexdigest()[:32]

    def mark(self, credentials: Sequence[Secret]) -> bytes:
        """32 bytes that are the same for the same values alone."""
        texts = [each.reveal().encode("utf-8", "surrogatepass") for each in credentials]
        measured = b"".join(len(text).to_bytes(8, "big") + text for text in texts)
        return hmac.new(self.__marks, measured, hashlib.sha256).digest()

    def seal(self, data: bytes, bound_to: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self.__sealing.encrypt(nonce, data, bound_to)

    def unseal(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        """None: it was made with another key or for something else, or it is damaged."""
        try:
            return self.__sealing.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound_to)
        except (InvalidTag, ValueError):
            return None

    def __repr__(self) -> str:
        return "DiskCacheKey(***)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a cache key cannot be pickled or copied")


def load_or_make(path: Path) -> DiskCacheKey:
    """The key in the file; a new one, readable to its owner only, where there is no such file."""
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            content = file.read(MAX_TEXT + 1)
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except OSError as error:
        raise SettingsError(f"the key of the secret cache at {path}: {error.strerror}") from None
    if mode & 0o077:
        log.warning("%s is open to other users (mode %04o); run: chmod 600 %s", path, mode, path)
    if len(content) > MAX_TEXT:
        del content
        raise SettingsError(f"{path} is too large for a key of the secret cache", hint="remove it")
    seed = _seed_in(content.decode("ascii", errors="replace").strip())
    del content
    if isinstance(seed, str):
        # Nothing is lost with it but a cache.
        raise SettingsError(
            f"{path} does not hold a key of the secret cache", hint="remove it; the cache starts over"
        )
    return DiskCacheKey(seed)


def _make(path: Path) -> None:
    """Whole or not at all, and the same one for two processes that start together."""
    seed = base64.b64encode(secrets.token_bytes(SIZE)).decode("ascii")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"{PREFIX}{seed}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def _seed_in(text: str) -> bytes | str:
    """The seed, or what is wrong with the text."""
    if not text.startswith(PREFIX):
        return "does not hold a key of the secret cache"
    try:
        seed = base64.b64decode(text.removeprefix(PREFIX).encode(), validate=True)
    except (ValueError, binascii.Error):
        seed = b""
    return seed if len(seed) == SIZE else "holds a damaged key of the secret cache"


def _derive(seed: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=SIZE, salt=None, info=label).derive(seed)
