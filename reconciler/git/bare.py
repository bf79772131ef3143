"""The bare repository of a mirror on the disk: its lock, its git, how it is made, swept and made anew.

Everything that writes holds one lock file beside the repository. Git inherits that lock, so that a git
which outlives a killed trueup keeps the next one out until it ends too. A new copy is made beside the old
one and takes its place by renaming: a mirror is whole or not there.
"""

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from reconciler.errors import GitUnavailable
from reconciler.git.failures import GitFailed, MirrorBroken, failure, local_failure, on_disk
from reconciler.git.locks import locked
from reconciler.git.objects import MIRRORED
from reconciler.git.process import MAX_OUTPUT, GitOptions, GitResult, git_result
from reconciler.git.urls import check_url, shown

# Left by a git that was killed; nobody else can be writing while we hold the lock.
_LEFTOVERS = (
    "*.lock",
    "refs/**/*.lock",
    "objects/info/*.lock",
    "objects/pack/*.lock",
    "objects/pack/tmp_*",
    "objects/??/tmp_obj_*",
    "objects/tmp_objdir-*",
    "gc.pid",
)

# Keeps the number of loose objects and packs of a mirror that lives for years within what git reads fast.
_REPACK = (
    "-c",
    "gc.auto=6700",
    "-c",
    "gc.autoPackLimit=50",
    "-c",
    "gc.autoDetach=false",
    "gc",
    "--auto",
    "-q",
)


class BareRepository:
    """A bare repository at `path` that mirrors `url`; `url` is checked here (GitRefused)."""

    def __init__(self, url: str, path: Path, options: GitOptions) -> None:
        self.url = check_url(url, allow_local=options.allow_local)
        self.path = path.absolute()
        self.options = options
        self._turn = trio.Lock()

    def is_there(self) -> bool:
        """Whether a copy was made. Says nothing about its soundness."""
        return (self.path / "HEAD").is_file()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[int]:
        """Hold the right to write, against other tasks and other processes; gives the lock's descriptor."""
        async with self._turn:
            with on_disk(self.path):
                await trio.to_thread.run_sync(lambda: self.path.parent.mkdir(parents=True, exist_ok=True))
            # Another holder may be in the middle of a fetch, which ends by itself.
            async with locked(self._beside(".lock"), wait=self.options.deadline) as lock:
                yield lock

    async def look(self, args: Sequence[str], *, stdin: bytes = b"", max_output: int = MAX_OUTPUT) -> bytes:
        """Output of a git command that only reads this repository and cannot fail on a sound one.

        Raises MirrorBroken when it fails all the same, GitFailed when git was killed or printed too much.
        """
        result = await self.ask(args, stdin=stdin, max_output=max_output)
        if result.code:
            raise local_failure(result.code, result.stderr, f"mirror of {self.url}")
        return result.stdout

    async def ask(
        self, args: Sequence[str], *, stdin: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> GitResult:
        """A git command that only reads this repository, with an exit code that the caller judges."""
        if not self.is_there():
            raise MirrorBroken(f"mirror of {shown(self.url)}: {self.path} is not a repository")
        return await git_result(
            args,
            git_dir=self.path,
            stdin=stdin,
            deadline=self.options.deadline,
            max_output=max_output,
            where=f"mirror of {self.url}",
        )

    async def write(
        self, args: Sequence[str], lock: int, *, stdin: bytes = b"", env: Mapping[str, str] = {}
    ) -> bytes:
        """Output of a git command that writes to this repository, under its lock.

        A copy that cannot be written to is made anew, once; what was written to it and never pushed is lost.
        """
        if not self.is_there():
            raise self.not_fetched()
        result = await self._write(args, lock, stdin, env)
        if result.code:
            error = local_failure(result.code, result.stderr, f"mirror of {self.url}")
            if not isinstance(error, MirrorBroken):
                raise error
            await self.rebuild(lock)
            result = await self._write(args, lock, stdin, env)
        return self._output(result)

    async def _write(self, args: Sequence[str], lock: int, stdin: bytes, env: Mapping[str, str]) -> GitResult:
        return await git_result(
            args,
            git_dir=self.path,
            stdin=stdin,
            deadline=self.options.deadline,
            env=env,
            where=f"mirror of {self.url}",
            keep_fds=[lock],
        )

    def not_fetched(self) -> GitUnavailable:
        return GitUnavailable(f"{shown(self.url)} has not been fetched yet")

    async def talk(
        self,
        args: Sequence[str],
        *,
        git_dir: Path | None = None,
        lock: int | None = None,
        transfer: bool = False,
    ) -> GitResult:
        """A git command that speaks to the remote. `transfer`: it shows progress and may take long."""
        options = self.options
        return await git_result(
            args,
            git_dir=git_dir,
            deadline=options.transfer_deadline if transfer else options.deadline,
            idle=options.deadline if transfer else None,
            allow_local=options.allow_local,
            env=options.environment(),
            where=self.url,
            keep_fds=[] if lock is None else [lock],
        )

    async def catch_up(self, lock: int) -> None:
        """Fetch what moved; make the copy anew where it is missing or cannot be fetched into."""
        if not self.is_there():
            return await self.rebuild(lock)
        with on_disk(self.path):
            await trio.to_thread.run_sync(_sweep, self.path)
        try:
            await self._fetch(self.path, lock)
            await self._repack(lock)
        except MirrorBroken:
            await self.rebuild(lock)

    async def rebuild(self, lock: int) -> None:
        """Make the copy anew, beside the old one, which stays in place until the new one is whole."""
        new, old = self._beside(".new"), self._beside(".old")
        with on_disk(self.path):
            await trio.to_thread.run_sync(_remove, new, old)
        try:
            result = await git_result(
                ["init", "-q", "--bare", "--template=", str(new)],
                deadline=self.options.deadline,
                where=str(new),
                keep_fds=[lock],
            )
            self._output(result)
            try:
                await self._fetch(new, lock)
            except MirrorBroken as error:
                raise GitFailed(f"{shown(self.url)}: cannot be copied: {error}") from None
            with on_disk(self.path):
                await trio.to_thread.run_sync(_replace, self.path, new, old)
        finally:
            # What cannot be removed now is in the way of the next rebuild, which then says so.
            with trio.CancelScope(shield=True), suppress(OSError):
                await trio.to_thread.run_sync(_remove, new, old)

    async def _fetch(self, git_dir: Path, lock: int) -> None:
        """Bring all mirrored refs and their whole history to `git_dir`.

        Raises MirrorBroken for what neither the network nor the remote explains.
        """
        result = await self.talk(
            [
                "fetch",
                "--progress",
                "--prune",
                "--force",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--",
                self.url,
                *(f"+{prefix}*:{prefix}*" for prefix in MIRRORED),
            ],
            git_dir=git_dir,
            lock=lock,
            transfer=True,
        )
        if result.code:
            error = failure(result.code, result.stderr, self.url)
            raise MirrorBroken(error.message) if type(error) is GitFailed and result.code > 0 else error

    async def _repack(self, lock: int) -> None:
        try:
            result = await git_result(
                _REPACK,
                git_dir=self.path,
                deadline=self.options.transfer_deadline,
                where=f"mirror of {self.url}",
                keep_fds=[lock],
            )
        except GitUnavailable:
            return  # took too long; the mirror is as good as before, and the next fetch tries again
        if result.code:
            raise local_failure(result.code, result.stderr, f"mirror of {self.url}")

    def _output(self, result: GitResult) -> bytes:
        if result.code:
            raise failure(result.code, result.stderr, f"mirror of {self.url}")
        return result.stdout

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _sweep(path: Path) -> None:
    for pattern in _LEFTOVERS:
        for leftover in path.glob(pattern):
            _remove(leftover)


def _replace(path: Path, new: Path, old: Path) -> None:
    if path.is_symlink() or path.exists():
        path.rename(old)
    new.rename(path)


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
