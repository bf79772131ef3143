"""Kind `env_file`: a dotenv file on the primary."""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from reconciler.secrets import dotenv
from reconciler.secrets.credentials import Unreadable, decoded, file_version, read_bounded
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvFileSettings, SecretSource

log = logging.getLogger(__name__)

MAX_FILE = 1024 * 1024
"""Bytes of an env file."""

_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class _Loaded:
    values: Mapping[str, Secret] = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class _Failed:
    problem: str
    hint: str | None = None
    line: int | None = None
    down: bool = False


class EnvFileSource:
    """Relative paths start at the primary's working directory, and errors show where they led."""

    def __init__(self, source: SecretSource, _context: SourceContext) -> None:
        assert isinstance(source.settings, EnvFileSettings)
        self._name = source.name
        self._settings = source.settings
        self._path = str(Path.cwd() / source.settings.file)
        self._warned_mode: int | None = None

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._settings

    async def version(self) -> Hashable | None:
        return await trio.to_thread.run_sync(file_version, self._path)

    async def fetch(self, _environment: str, /) -> Mapping[str, Secret]:
        path = self._path
        outcome = await trio.to_thread.run_sync(_load, path)
        if isinstance(outcome, _Failed):
            line = "" if outcome.line is None else f":{outcome.line}"
            kind = SourceDown if outcome.down else SourceRefused
            raise kind(f"secret source {self._name}: {path}{line}: {outcome.problem}", hint=outcome.hint)
        self._warn_of_readers(path, outcome.mode)
        return outcome.values

    def _warn_of_readers(self, path: str, mode: int) -> None:
        """Once for each state of the file's permissions."""
        if mode & _OTHERS and mode != self._warned_mode:
            log.warning(
                "[env_file] %s is open to other users (mode %04o); run: chmod 600 %s", path, mode, path
            )
        self._warned_mode = mode


def _load(path: str) -> _Loaded | _Failed:
    """In a worker thread, so that plain text never stands in a frame that an error passes through."""
    found = read_bounded(path, MAX_FILE)
    if isinstance(found, Unreadable):
        if found.missing:
            return _Failed(found.problem, "create it, or mend `file`")
        return _Failed(found.problem, down=not found.refused)
    text = decoded(found.data)
    if text is None:
        return _Failed("it is not UTF-8 text", "save it as UTF-8")
    values = dotenv.parse(text)
    if isinstance(values, dotenv.BadLine):
        return _Failed(values.problem, "mend that line", values.line)
    return _Loaded({key: Secret(value) for key, value in values.items()}, found.mode)
