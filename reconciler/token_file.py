"""The file of API tokens on disk: read anew whenever it changed, added to, never open to others."""

import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from reconciler.api_tokens import (
    BYTES,
    PREFIX,
    ApiToken,
    TokenRole,
    check_name,
    digest_of,
    line_of,
    parse_tokens,
)
from reconciler.errors import SettingsError
from reconciler.secrets.values import Secret

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_FILE: Final = 512 * 1024
"""Bytes."""

NOT_FOR_OTHERS: Final = 0o027
"""A group may read it: that is how systemd shows a service its credentials."""

_HEADER: Final = "# API tokens of trueup, one a line: NAME ROLE sha256:DIGEST [expires=TIME]\n"


class TokensUnusable(SettingsError):
    """The file of API tokens is missing or wrong; until it is mended nobody is let in."""

    reason = "SettingsInvalid"


class TokenFile:
    """What a file says at this moment. It is looked at for each question, and read when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._known: tuple[ApiToken, ...] = ()
        self._fault: TokensUnusable | None = None

    def tokens(self) -> tuple[ApiToken, ...]:
        """All of them, also those whose time is over. Raises TokensUnusable; that is logged once a change."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._read()
        if self._fault is not None:
            raise self._fault
        return self._known

    def forget(self) -> None:
        """Let the next question read it, whether it seems to have changed or not."""
        self._seen = None

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            return (error.errno or 0,)
        return (
            *(found.st_dev, found.st_ino, found.st_mode, found.st_size),
            *(found.st_mtime_ns, found.st_ctime_ns),
        )

    def _read(self) -> None:
        known = self._known
        self._known, self._fault = (), None
        try:
            self._known = read_tokens(self._path)
        except SettingsError as error:
            self._fault = TokensUnusable(str(error))
            for line in str(error).splitlines():
                log.error("nobody gets into the API with a token", error=line)
        else:
            if self._known != known:
                log.info("API tokens were read", tokens=len(self._known))


def read_tokens(path: Path) -> tuple[ApiToken, ...]:
    """Raises SettingsError for a file that is not there, that others may read, or that has a wrong line."""
    try:
        # One that is no regular file, such as a pipe, must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise SettingsError(f"{path}: is no file")
            if found.st_mode & NOT_FOR_OTHERS:
                mode = stat.S_IMODE(found.st_mode)
                raise SettingsError(
                    f"{path}: others may read or change it (mode {mode:04o})", hint=f"run: chmod 600 {path}"
                )
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_FILE + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: there is no such file of API tokens",
            hint="make one with `trueup token new`, or leave TRUEUP_API_TOKENS_FILE out",
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise SettingsError(f"{path}: is larger than {MAX_FILE} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: is not UTF-8 text") from None
    return parse_tokens(text, path=str(path))


def new_token(
    name: str, role: TokenRole, *, lasts: float | None, now: Callable[[], datetime]
) -> tuple[Secret, ApiToken]:
    """A token, which stands nowhere else, and what the file has of it. Raises SettingsError for the name."""
    try:
        check_name(name)
        expires = None if lasts is None else now() + timedelta(seconds=lasts)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{name!r} cannot be a token: {error}") from None
    token = Secret(PREFIX + secrets.token_hex(BYTES))
    return token, ApiToken(name, role, digest_of(token.reveal()), expires)


def append_token(path: Path, token: ApiToken) -> None:
    """Add a line; the file is made, for its owner alone, where there is none. Raises SettingsError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "rb+") as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = read_tokens(path)
            if any(each.name == token.name for each in known):
                raise SettingsError(
                    f"{path} has a token named {token.name} already", hint="remove its line to replace it"
                )
            size = file.seek(0, os.SEEK_END)
            before = b""
            if size:
                file.seek(size - 1)
                before = b"" if file.read(1) == b"\n" else b"\n"
            written = before + (b"" if size else _HEADER.encode()) + line_of(token).encode() + b"\n"
            file.write(written)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
