"""API tokens as their file has them: names, roles and digests, never a token. Pure.

One line a token, such as `ci operate sha256:9f86… expires=2027-02-24T00:00:00Z`; `#` begins a comment.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, get_args

from reconciler.errors import SettingsError

PREFIX: Final = "trueup_"
"""What a token begins with, so that scanners find one that got into a repository or a log."""

BYTES: Final = 32
"""Of randomness in a token: nobody guesses 256 bits, so a plain digest of them is enough."""

MAX_TOKENS: Final = 1000

TokenRole = Literal["read", "operate"]

_TOKEN: Final = re.compile(rb"trueup_[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,62}[A-Za-z0-9])?")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_FORM: Final = "NAME ROLE sha256:DIGEST [expires=TIME]"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One line. `name` stands in the commits and records that come of it."""

    name: str
    role: TokenRole
    digest: bytes
    expires: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


def check_name(name: str) -> None:
    """Raises ValueError for what cannot be the name of a token."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has letters, digits and . _ @ + - between them, at most 64")


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def find_token(tokens: Iterable[ApiToken], presented: bytes) -> ApiToken | None:
    """The one that was presented. How long that takes says nothing of which one that is."""
    well_formed = _TOKEN.fullmatch(presented) is not None
    digest = hashlib.sha256(presented).digest()
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest) and well_formed:
            found = token
    return found


def line_of(token: ApiToken) -> str:
    """As it stands in the file."""
    words = [token.name, token.role, f"sha256:{token.digest.hex()}"]
    if token.expires is not None:
        words.append(f"expires={token.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return " ".join(words)


def parse_tokens(text: str, *, path: str) -> tuple[ApiToken, ...]:
    """All tokens of a file. Raises SettingsError with one line, `path:number: what`, for each wrong one."""
    found: dict[str, ApiToken] = {}
    digests: set[bytes] = set()
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            token = _token(words)
            if token.name in found:
                raise ValueError(f"there is another token named {token.name}")
            if token.digest in digests:
                raise ValueError("another line has the same token")
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        found[token.name] = token
        digests.add(token.digest)
    if len(found) > MAX_TOKENS:
        wrong.append(f"{path}: more than {MAX_TOKENS} tokens")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return tuple(found.values())


def _token(words: list[str]) -> ApiToken:
    # What was written is not repeated: it may be a token that somebody put there instead of its digest.
    if any(word.startswith(PREFIX) for word in words):
        raise ValueError("this is a token itself; only its digest belongs here, see `trueup token new`")
    if len(words) not in (3, 4):
        raise ValueError(f"a line reads {_FORM}")
    name, role, digest, *rest = words
    check_name(name)
    if role not in get_args(TokenRole):
        raise ValueError("a role is read or operate")
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise ValueError("a digest is sha256: and 64 hexadecimal digits, as `trueup token new` prints it")
    expires = _expiry(rest[0]) if rest else None
    return ApiToken(name, "operate" if role == "operate" else "read", bytes.fromhex(found[1]), expires)


def _expiry(word: str) -> datetime:
    key, equals, text = word.partition("=")
    try:
        moment = datetime.fromisoformat(text) if (key, equals) == ("expires", "=") else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("what follows the digest is expires= and a time, such as 2027-02-24T00:00:00Z")
    return moment.astimezone(UTC)
