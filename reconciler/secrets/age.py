"""Kind `age`: a dotenv or YAML file encrypted with age, opened in memory with an identity of the spec's."""

import re
from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import trio

from reconciler.secrets import dotenv, flat_yaml
from reconciler.secrets.credentials import decoded
from reconciler.secrets.dotenv import BadLine
from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.secret_file import Content, SecretFile
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import AgeSettings, SecretSource

_BINARY: Final = b"age-encryption.org/v1\n"
_ARMOURED: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_PASSPHRASE: Final = _BINARY + b"-> scrypt "
_ARMOURED_PASSPHRASE: Final = b64encode(_PASSPHRASE)[:40]
_SSH: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_NO_IDENTITY_FITS: Final = "No matching keys found"
"""The one message of pyrage that tells a wrong identity from a damaged file; a test holds it to that."""


@dataclass(frozen=True, slots=True)
class _Failed:
    problem: str
    hint: str
    of_identity: bool = False


class AgeSource:
    """Nothing decrypted is written anywhere or stands in an error."""

    def __init__(self, source: SecretSource, context: SourceContext) -> None:
        assert isinstance(source.settings, AgeSettings)
        self._name = source.name
        self._settings = source.settings
        self._context = context
        self._file = SecretFile(source.settings.file, source.settings.repository, context.files)

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._settings, self._file.identity

    async def version(self) -> Hashable | None:
        return await self._file.version()

    async def fetch(self, environment: str, /) -> Mapping[str, Secret]:
        identity = await self._context.credentials.read(self._settings.identity, environment)
        content = await self._file.read(self._name)
        outcome = await trio.to_thread.run_sync(
            _opened, content, identity, self._settings.format, limiter=self._context.limiter
        )
        if isinstance(outcome, _Failed):
            where = "`identity`" if outcome.of_identity else self._file.where
            raise SourceRefused(f"secret source {self._name}: {where}: {outcome.problem}", hint=outcome.hint)
        return outcome


def _opened(
    content: Content, identity: Secret, form: Literal["dotenv", "yaml"]
) -> dict[str, Secret] | _Failed:
    """In a worker thread, so that plain text never stands in a frame that an error passes through."""
    plain = _decrypted(content.data, identity)
    if isinstance(plain, _Failed):
        return plain
    text = decoded(plain)
    if text is None:
        return _Failed("the decrypted text is not UTF-8", "encrypt a file that is saved as UTF-8")
    values = dotenv.parse(text) if form == "dotenv" else flat_yaml.parse(text)
    if isinstance(values, BadLine):
        return _Failed(
            f"line {values.line} of the decrypted text, read as {form}: {values.problem}",
            "mend that line, or `format`",
        )
    return {key: Secret(value) for key, value in values.items()}


def _decrypted(data: bytes, identity: Secret) -> bytes | _Failed:
    import pyrage

    if not data.startswith(_BINARY) and not data.lstrip().startswith(_ARMOURED):
        return _Failed("it is not a file that age encrypted", "encrypt it: age -r RECIPIENT -o FILE PLAIN")
    if data.startswith(_PASSPHRASE) or _ARMOURED_PASSPHRASE in data[:256]:
        return _Failed(
            "it is encrypted with a passphrase, and there is nobody to type one",
            "encrypt it for a recipient: age -r RECIPIENT",
        )
    identities = _identities(identity.reveal())
    if isinstance(identities, _Failed):
        return identities
    try:
        plain: bytes = pyrage.decrypt(data, identities)
    except pyrage.DecryptError as error:
        if str(error) == _NO_IDENTITY_FITS:
            return _Failed("`identity` does not open it", "encrypt it for that one, or name another")
        return _Failed("it is cut off or damaged", "encrypt it anew")
    return plain


def _identities(text: str) -> Sequence[Any] | _Failed:
    """Of an identity file as age-keygen writes it, or of an OpenSSH private key."""
    import pyrage

    if _SSH.match(text.lstrip()):
        try:
            return [pyrage.ssh.Identity.from_buffer(f"{text.strip()}\n".encode())]
        except pyrage.IdentityError:
            return _unusable("the OpenSSH key is not an ed25519 or RSA key without a passphrase")
    lines = [line.strip() for line in text.splitlines()]
    found: list[Any] = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        try:
            found.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            return _unusable(f"line {number} is not an identity AGE-SECRET-KEY-1…")
    return found or _unusable("there is no identity in it")


def _unusable(problem: str) -> _Failed:
    return _Failed(problem, "give what age-keygen wrote, or an OpenSSH private key", of_identity=True)
