"""Reads the credentials that a spec names: a variable, a file, or a key of a secret source."""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import trio

from reconciler.errors import SettingsError
from reconciler.keys import PREFIX as KEY_PREFIX
from reconciler.secrets.disk_cache_key import PREFIX as CACHE_KEY_PREFIX
from reconciler.secrets.values import Secret, is_text
from reconciler.spec.model import Credential, EnvCredential, FileCredential, SecretCredential

MAX_CREDENTIAL = 64 * 1024
"""Bytes of a file that holds one credential."""

Lookup = Callable[[str, str, str], Awaitable[Secret]]
"""(source, key, environment) -> the value; raises what `SecretStore.values` raises, and SecretMissing."""


class VariableNotSet(SettingsError):
    """Neither a variable nor its NAME_FILE is there."""


class Credentials:
    """Reads from the primary's own environment, as its settings hand it over, and from files.

    `lookup` reads from secret sources; the SecretStore provides it. As `environ` is full of secrets, this
    shows nothing of it and cannot be pickled or copied.
    """

    __slots__ = ("_lookup", "environ")

    def __init__(self, environ: Mapping[str, str], lookup: Lookup | None = None) -> None:
        self.environ = environ
        self._lookup = lookup

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("credentials cannot be pickled or copied")

    def with_lookup(self, lookup: Lookup) -> "Credentials":
        return Credentials(self.environ, lookup)

    async def read(self, credential: Credential, environment: str) -> Secret:
        """The credential's value now. Raises SettingsError where a variable or a file is missing."""
        match credential:
            case EnvCredential(name=name):
                return await self._variable(name)
            case FileCredential(path=path):
                return await _file(path, f"credential file {path}")
            case SecretCredential(source=source, key=key):
                if self._lookup is None:
                    raise SettingsError(f"the credential {source}/{key} needs a secret store")
                return await self._lookup(source, key, environment)

    async def _variable(self, name: str) -> Secret:
        value, path = Secret(self.environ.get(name, "")), self.environ.get(f"{name}_FILE")
        if value.reveal() and path:
            raise SettingsError(f"both {name} and {name}_FILE are set", hint="unset one of them")
        if path:
            return await _file(path, f"the file that {name}_FILE names, {path}")
        if not value.reveal():
            raise VariableNotSet(
                f"the variable {name} is not set", hint=f"set {name}, or {name}_FILE to a file that holds it"
            )
        if not is_text(value.reveal()):
            raise SettingsError(f"the variable {name} is not UTF-8 text")
        return value


async def _file(path: str, what: str) -> Secret:
    outcome = await trio.to_thread.run_sync(read_bounded, path, MAX_CREDENTIAL)
    if isinstance(outcome, Unreadable):
        raise SettingsError(f"{what}: {outcome.problem}")
    text = decoded(outcome.data)
    if text is None:
        raise SettingsError(f"{what}: it is not UTF-8 text")
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SettingsError(f"{what}: it is empty")
    return Secret(value)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file cannot be read. `missing`: there is none. `refused`: there is one, and it will not do."""

    problem: str
    missing: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class FileData:
    data: bytes = field(repr=False)
    mode: int
    """Permission bits."""


def read_bounded(path: str, limit: int) -> FileData | Unreadable:
    """A regular file of at most `limit` bytes. Blocks only as long as its file system does."""
    try:
        # Without O_NONBLOCK a named pipe would hold the thread for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Unreadable("it is not a regular file", refused=True)
            data = b""
            while len(data) <= limit and (chunk := os.read(descriptor, limit + 1 - len(data))):
                data += chunk
        finally:
            os.close(descriptor)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP)
        return Unreadable(
            "there is no such file" if missing else (error.strerror or type(error).__name__).lower(),
            missing=missing,
            refused=refused,
        )
    if len(data) > limit:
        return Unreadable(f"it is larger than {limit} bytes", refused=True)
    if KEY_PREFIX.encode() in data or CACHE_KEY_PREFIX.encode() in data:
        # Who may write the spec must not get the key by naming it as the credential of a host of theirs.
        return Unreadable("it holds a key of trueup, which nothing that a spec names may read", refused=True)
    return FileData(data, stat.S_IMODE(status.st_mode))


def file_version(path: str) -> tuple[int, ...] | None:
    """What changes with a file's content: where it is, its size, its times. Empty: there is none.

    None where that cannot be told.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def decoded(data: bytes) -> str | None:
    """UTF-8 text, or None. The error of a failed decode would hold the data, so it does not get out."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
