"""A node's token: an Ed25519 key. The host holds the private half, the spec the public one.

Whoever can read the spec can therefore not pair as the node.
"""

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.errors import SettingsError

_PREFIX = "trueup-token-1:"
_PUBLIC_PREFIX = "ed25519:"
_SIZE = 32


class NodeToken:
    """The private half. Shown as `***` wherever it could leak; `to_text` is the one way out."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> "NodeToken":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str, *, where: str = "the token") -> "NodeToken":
        """Read what `to_text` gave; SettingsError (never with the text itself) if it is something else."""
        wrong = SettingsError(
            f"{where} is not a node's token (it looks like {_PREFIX}...)",
            hint="copy the whole join command that `trueup node add` printed",
        )
        text = text.strip()
        if not text.startswith(_PREFIX):
            raise wrong
        encoded = text.removeprefix(_PREFIX)
        try:
            seed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise wrong from None
        if len(seed) != _SIZE:
            raise wrong
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def to_text(self) -> str:
        """`trueup-token-1:<base64url without padding>`: safe in a shell without quotes."""
        return _PREFIX + base64.urlsafe_b64encode(self._key.private_bytes_raw()).decode().rstrip("=")

    @property
    def public_text(self) -> str:
        """What stands in the spec as the node's `token_key`: `ed25519:<base64>`."""
        return _PUBLIC_PREFIX + base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, statement: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(statement)

    def __repr__(self) -> str:
        return "NodeToken(***)"

    def __reduce__(self) -> str:
        raise TypeError("a node's token is not pickled")


def parse_token_key(text: str, *, where: str = "token_key") -> Ed25519PublicKey:
    """The public half from its text in the spec; SettingsError if it is malformed."""
    try:
        if not text.startswith(_PUBLIC_PREFIX):
            raise ValueError("no prefix")
        raw = base64.b64decode(text.removeprefix(_PUBLIC_PREFIX), validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise SettingsError(
            f"{where} is not the public half of a node's token (ed25519:<base64 of {_SIZE} bytes>)"
        ) from None
