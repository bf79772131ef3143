"""The file that a source decrypts: on the primary itself, or at the tip of a repository's branch."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from reconciler.errors import NotYetImplemented, TrueupError
from reconciler.secrets.credentials import Unreadable, file_version, read_bounded
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.source import RepositoryFiles

MAX_FILE = 1024 * 1024
"""Bytes of an encrypted file."""


@dataclass(frozen=True, slots=True)
class Content:
    """Of a file that should be encrypted and may not be: not shown by a traceback either."""

    data: bytes = field(repr=False)


class SecretFile:
    """`where` names it in errors: a whole path, or `REPOSITORY:PATH`."""

    def __init__(self, file: str, repository: str | None, files: RepositoryFiles | None) -> None:
        self._place = None
        if repository is not None:
            assert files is not None, "the spec's repositories are there wherever it names one"
            self._place = files, repository
        self._path = file if repository is not None else str(Path.cwd() / file)
        self.where = self._path if repository is None else f"{repository}:{file}"

    @property
    def identity(self) -> Hashable:
        """What decides which file this is."""
        if self._place is None:
            return self._path
        files, repository = self._place
        return self._path, files.identity(repository)

    async def version(self) -> Hashable | None:
        """Another one for another content, as far as that can be told without reading it."""
        if self._place is not None:
            files, repository = self._place
            return await files.version(repository, self._path)
        return await trio.to_thread.run_sync(file_version, self._path)

    async def read(self, source: str) -> Content:
        """The whole file. Raises SourceDown where it cannot be looked at now, SourceRefused otherwise.

        `source` is the name that the error begins with.
        """
        if self._place is not None:
            return await self._read_from(*self._place, source)
        found = await trio.to_thread.run_sync(read_bounded, self._path, MAX_FILE)
        if isinstance(found, Unreadable):
            refused = found.missing or found.refused
            kind = SourceRefused if refused else SourceDown
            hint = "create it, or mend `file`" if found.missing else None
            raise kind(f"secret source {source}: {self.where}: {found.problem}", hint=hint)
        return Content(found.data)

    async def _read_from(self, files: RepositoryFiles, repository: str, source: str) -> Content:
        try:
            data = await files.read(repository, self._path, max_size=MAX_FILE)
        except NotYetImplemented:
            raise
        except TrueupError as error:
            kind = SourceDown if error.retryable else SourceRefused
            raise kind(f"secret source {source}: {self.where}: {error}") from None
        if data is None:
            raise SourceRefused(
                f"secret source {source}: {self.where}: there is no such file on that repository's branch",
                hint="commit it there, or mend `file`",
            )
        return Content(data)
