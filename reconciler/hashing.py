"""Config hashes: what decides a resource's outcome, by name, so that a plan can say what changed.

A hash reads `v1:<key id>:<public>:<keyed>`. The public part is SHA-256 over the canonical JSON
(RFC 8785) of everything that is no secret; the keyed part is SHA-256 over HMAC-SHA256 fingerprints of
secret values, so that it can stand in a public file without inviting a dictionary attack. A
fingerprint is bound to its resource and its name: equal values do not show as equal.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import rfc8785

FINGERPRINT_HEX = 16
"""Hex digits of a fingerprint that are published: 64 bits tell values apart and give nothing away."""

VERSION = "v1"

SECRET = "secret "  # noqa: S105 - a word, not a secret
"""Before the name of a keyed input in a plan's list of changes."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What decides an outcome. Both maps go from an input's name, as a plan prints it, to a digest."""

    public: Mapping[str, str] = field(default_factory=dict)
    keyed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigHash:
    key_id: str
    public: str
    keyed: str

    def __str__(self) -> str:
        return f"{VERSION}:{self.key_id}:{self.public}:{self.keyed}"

    @classmethod
    def parse(cls, text: str) -> "ConfigHash | None":
        """The hash in `text`; None for another version or anything else, which is then recomputed."""
        match text.split(":"):
            case [version, key_id, public, keyed] if version == VERSION:
                return cls(key_id, public, keyed)
        return None


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value (RFC 8785); accepts what JSON can hold, with string keys."""
    return rfc8785.dumps(value)


_BLOCK = 64
"""Bytes that SHA-256 takes at a time."""


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, lower-case hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def fingerprint(hash_key: bytes, *, target: str, name: str, value: str) -> str:
    """A publishable mark of a secret value under this master key, for this resource and name alone."""
    # Lengths keep (target, name, value) apart, whatever separators they contain.
    secret = value.encode("utf-8", "surrogatepass")  # an encode that fails would raise with the value inside
    first, second = _halves(hash_key)
    inner, outer = first.copy(), second.copy()
    inner.update(b"".join((_measured(target), _measured(name), len(secret).to_bytes(8, "big"), secret)))
    outer.update(inner.digest())
    return outer.hexdigest()[:FINGERPRINT_HEX]


# A pass takes tens of thousands of fingerprints, with one key, of the same targets and names.


@lru_cache(maxsize=4)
def _halves(hash_key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """Both hashes of an HMAC-SHA256 (RFC 2104) with the key in them, to be copied.

    The module hmac takes twice as long for a short message, which a test compares this with.
    """
    block = (hash_key if len(hash_key) <= _BLOCK else hashlib.sha256(hash_key).digest()).ljust(_BLOCK, b"\0")
    first, second = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
    return first, second


@lru_cache(maxsize=4096)
def _measured(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "big") + data


def config_hash(inputs: Inputs, key_id: str) -> ConfigHash:
    return ConfigHash(key_id, digest(dict(inputs.public)), digest(dict(inputs.keyed)))


def changed_inputs(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """Names that were added, removed or have another digest, in order."""
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))
