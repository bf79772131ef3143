"""The lease in its repository: read, and written by compare-and-swap.

It has a small bare repository of its own in the state directory: a renewal never waits for a fetch of the
mirror, which may take long. Each command has a deadline far below the time that a lease is good for.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import LeaseRewound
from reconciler.git.bare import BareRepository
from reconciler.git.failures import failure, on_disk
from reconciler.git.objects import LEASE_REF, parse_ls_remote
from reconciler.git.process import GitOptions, git_result
from reconciler.git.pushes import push_arguments, pushed
from reconciler.keys import MasterKey
from reconciler.lease import Lease
from reconciler.lease_record import EMPTY_TREE, MAX_SIZE, parse, render

KNOWN: Final = 64
"""Leases that are kept parsed. Those of one holder come again and again."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the ref; None and None where there is no lease."""

    oid: str | None
    lease: Lease | None


class LeaseRef(BareRepository):
    """The lease in the repository at `url`, by way of the bare repository at `path`."""

    def __init__(self, url: str, path: Path, options: GitOptions, key: MasterKey, *, deadline: float) -> None:
        """`deadline`: seconds for one command; one that hangs must leave time for another attempt."""
        super().__init__(url, path, replace(options, deadline=deadline, transfer_deadline=deadline))
        self._key = key
        self._known: dict[str, Lease] = {}
        self.newest = 0
        """The newest epoch that was seen there."""
        self._made = False

    async def read(self) -> Found:
        """What stands there now: one ls-remote, and one fetch of one object where it is not known.

        Raises GitUnavailable, GitRefused; KeyMismatch, LeaseUnreadable, LeaseRewound.
        """
        result = await self.talk(["ls-remote", "--", self.url, LEASE_REF])
        if result.code:
            raise failure(result.code, result.stderr, self.url)
        oid = parse_ls_remote(result.stdout, self.url, (LEASE_REF,)).get(LEASE_REF)
        return await self.found(oid)

    async def found(self, oid: str | None) -> Found:
        """The lease that somebody saw under an id; fetched where it is not known, and then what is there."""
        if oid is None:
            return Found(None, None)
        if oid not in self._known:
            oid = await self._bring()
        lease = self._known[oid]
        if lease.epoch < self.newest:
            raise LeaseRewound(
                f"the lease {LEASE_REF} was set back from epoch {self.newest} to {lease.epoch}",
                hint=f"end all primaries but one, and `git push <repository> :{LEASE_REF}`",
            )
        self.newest = lease.epoch
        return Found(oid, lease)

    async def put(self, lease: Lease, *, expected: str | None) -> str | None:
        """Put a lease there if `expected` still is; its id. None: somebody else has written meanwhile.

        After an error it may stand there all the same. Raises GitUnavailable, GitRefused.
        """
        content = render(lease, self._key)
        async with self.exclusive() as lock:
            await self._make(lock)
            oid = await self._hash("commit", content, lock)
            args = push_arguments(self.url, LEASE_REF, oid, expected=expected)
            result = await self.talk(args, git_dir=self.path, lock=lock)
        if not pushed(result, self.url, LEASE_REF):
            return None
        self._remember(oid, lease)
        self.newest = max(self.newest, lease.epoch)
        return oid

    async def _bring(self) -> str:
        async with self.exclusive() as lock:
            await self._make(lock)
            args = ["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--force", "--", self.url]
            result = await self.talk([*args, f"+{LEASE_REF}:{LEASE_REF}"], git_dir=self.path, lock=lock)
            if result.code:
                raise failure(result.code, result.stderr, self.url)
            oid = (await self.look(["rev-parse", "--verify", LEASE_REF])).decode().strip()
            content = await self.look(["cat-file", "commit", oid], max_output=MAX_SIZE)
        self._remember(oid, parse(content, self._key))
        return oid

    def _remember(self, oid: str, lease: Lease) -> None:
        self._known.pop(oid, None)
        self._known[oid] = lease
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    async def _make(self, lock: int) -> None:
        """Make what is needed to write here, once for each process: one before may have been killed in it."""
        if self._made and self.is_there():
            return
        await self._local(["init", "-q", "--bare", "--template=", str(self.path)], lock, git_dir=None)
        assert await self._hash("tree", b"", lock) == EMPTY_TREE
        self._made = True

    async def _hash(self, kind: str, content: bytes, lock: int) -> str:
        args = ["hash-object", "-w", "--stdin", "-t", kind]
        return (await self._local(args, lock, git_dir=self.path, stdin=content)).decode().strip()

    async def _local(self, args: list[str], lock: int, *, git_dir: Path | None, stdin: bytes = b"") -> bytes:
        result = await git_result(
            args,
            git_dir=git_dir,
            stdin=stdin,
            deadline=self.options.deadline,
            where=str(self.path),
            keep_fds=[lock],
        )
        if result.code:
            # Nothing in it is of value: the next attempt makes it anew.
            with on_disk(self.path):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(self.path, ignore_errors=True))
            raise failure(result.code, result.stderr, str(self.path))
        return result.stdout
