"""A tree whose files are still being hashed: what of it is known already is served to agents that take it so.

All agents share the one hashing. A first copy begins with the first files that are hashed; all else waits
until the tree's digest is known.
"""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import compress, count
from operator import is_not
from pathlib import Path

import msgspec
import structlog
import trio

from agent.errors import TransferFailed, TrueupError
from agent.index import split_batches, tree_digest
from agent.scan import Found, found_from, hash_files, scan
from agent.wire.channel import Channel
from agent.wire.messages import DIGEST_SIZE, Entry, IndexBegin, IndexEnd, IndexFile, TaskReport
from reconciler.errors import LookFailed
from reconciler.sync.opened import opened
from reconciler.sync.selection import Selection, check_sendable, entries_of, sendable_time, unsent
from reconciler.sync.serving import NotStreamed, TreeSource
from reconciler.sync.telling import TreeRuns

log: structlog.stdlib.BoundLogger = structlog.get_logger()

PORTION_FILES = 2048
PORTION_BYTES = 64 * 1024 * 1024
"""What is hashed before the index goes on; a larger file is one by itself. A tree of one portion is hashed
before it is sent, as nothing would be gained."""

TELL_SECONDS = 30.0
"""Between two words to an agent that waits for a large file to be hashed."""

_Paths = Sequence[tuple[str, Found]]
Hash = Callable[[int, _Paths], Awaitable[Mapping[str, bytes | None]]]
_Send = Callable[[str, str, TreeSource], Awaitable[TaskReport]]


class Growing:
    """What is known of a tree that was just put together, whose times mean nothing. `run` hashes it, once;
    whoever waits is served or told why it can't be."""

    def __init__(
        self,
        directory: Path,
        found: Mapping[str, Found],
        mtime_ns: int,
        *,
        modes: bool,
        hash: Hash,
        own: Collection[str] = (),
        before: TreeSource | None = None,
    ) -> None:
        """`own`: paths that are left out as their names are trueup's own. `before`: what the directory held
        earlier, by the same rules; the files that are as they were then are known."""
        self._directory = directory
        self._before = before
        self._known = {} if before is None else {entry.path: entry for entry in before.entries}
        self._hash_files = hash
        self._modes = modes
        self._paths = [(path, found[path]) for path in sorted(found)]
        self._portions = _portions(self._paths)
        files = {path: there for path, there in self._paths if there.kind == "file"}
        self._count = sum(there.kind != "other" for there in found.values())
        self._entries: list[Entry] = []
        self._batches: list[tuple[Entry, ...]] = []
        self._changed = trio.Condition()
        self._whole: TreeSource | None = None
        self._error: TrueupError | None = None
        self.source = TreeSource(
            directory=directory,
            entries=self._entries,
            # No tree has this: whoever compares it finds a difference, also an agent that knows no streams.
            tree=os.urandom(DIGEST_SIZE),
            files=len(files),
            bytes=sum(there.size for there in files.values()),
            warnings=tuple(unsent(found, own)),
            found=files,
            mtime_ns=mtime_ns,
            times=False,
            growing=self,
        )

    @property
    def gains(self) -> bool:
        """Whether anything can be sent before all is hashed."""
        return len(self._portions) > 1

    @property
    def failed(self) -> bool:
        return self._error is not None

    @classmethod
    async def begin(
        cls,
        directory: Path,
        selection: Selection,
        *,
        ignore_permissions: bool = False,
        hash: Hash = hash_files,
        before: TreeSource | None = None,
    ) -> "Growing":
        """Looks at a directory, in a worker thread; raises as `TreeSource.build`. `hash` reads the
        files that are not known; it may know some of them already."""

        def walk() -> Growing:
            with opened(directory) as fd:
                seen = scan(fd, selection.leave_out, reserved=selection.reserved)
                found = selection.choose(seen.found)
                check_sendable(found, {})
                mtime_ns = sendable_time(found_from(os.fstat(fd)))
                modes = not ignore_permissions
                given = directory, found, mtime_ns
                return cls(*given, modes=modes, hash=hash, own=selection.kept_back(seen), before=before)

        return await trio.to_thread.run_sync(walk)

    async def run(self) -> None:
        """Hashes the files in path order; what goes wrong is told to those who wait."""
        try:
            with opened(self._directory) as fd:
                for portion in self._portions:
                    await self._hash(fd, portion)
            entries = tuple(self._entries)
            tree, runs = await trio.to_thread.run_sync(self._digest, entries)
            self._whole = replace(self.source, entries=entries, tree=tree, growing=None, runs=runs)
        except TransferFailed as error:  # the same would fail again
            self._error = LookFailed(error.message, hint=error.hint)
        except TrueupError as error:
            self._error = error
        finally:
            if self._whole is None and self._error is None:
                self._error = TransferFailed("nobody goes on with hashing the tree")
            self._before, self._known = None, {}
            with trio.CancelScope(shield=True):
                await self._notify()

    def _digest(self, entries: tuple[Entry, ...]) -> tuple[bytes, TreeRuns]:
        """The tree digest, and what is told of the tree, of which what was told before is a part."""
        before = self._before
        places = None if before is None else changed_places(before.entries, entries)
        if before is None or places is None:
            return tree_digest(entries, ignore_permissions=not self._modes), TreeRuns()
        runs = before.runs.with_others(before.entries, entries, places)
        return runs.tree(entries, ignore_permissions=not self._modes), runs

    async def _hash(self, root_fd: int, portion: _Paths) -> None:
        before = {} if self._before is None else self._before.found
        others = [(path, there) for path, there in portion if not there.same_as(before.get(path))]
        contents = await self._hash_files(root_fd, [each for each in others if each[1].kind == "file"])

        def finish() -> tuple[list[Entry], list[tuple[Entry, ...]]]:
            made = {entry.path: timeless(entry) for entry in entries_of(others, contents, self._directory)}
            entries: list[Entry] = []
            for path, there in portion:
                entry = made.get(path)
                # The very object where nothing differs, so that this shows without comparing what it holds.
                if there.kind != "other" and (entry is None or entry == self._known.get(path)):
                    entry = self._known[path]
                if entry is not None:
                    entries.append(entry)
            return entries, split_batches(entries)

        entries, batches = await trio.to_thread.run_sync(finish)
        self._entries += entries
        self._batches += batches
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def whole(self) -> TreeSource:
        """All of it, once it is known. Raises what kept it from that."""
        async with self._changed:
            while self._whole is None:
                self._check()
                await self._changed.wait()
            return self._whole

    def _check(self) -> None:
        if self._error is not None:
            raise copy(self._error)  # each who waits has one of its own, to which its traceback is added

    async def tell(self, channel: Channel, task: str) -> None:
        """Tells an agent of the tree as it becomes known."""
        source = self.source
        await channel.send(IndexBegin(task=task, entries=self._count, bytes=source.bytes))
        number = 0
        while (batch := await self._batch(number)) is not None:
            await channel.send(IndexFile(task=task, entries=batch))
            number += bool(batch)
        await channel.send(IndexEnd(task=task, tree=(await self.whole()).tree))

    async def _batch(self, number: int) -> tuple[Entry, ...] | None:
        """One of the index once it is known, None after the last; an empty one if that takes its time."""
        with trio.move_on_after(TELL_SECONDS):
            async with self._changed:
                while number == len(self._batches):
                    self._check()
                    if self._whole is not None:
                        return None
                    await self._changed.wait()
                return self._batches[number]
        return ()


def changed_places(before: Sequence[Entry], entries: Sequence[Entry]) -> list[int] | None:
    """Where `entries` are not the very objects that `before` has; None unless both have the same paths."""
    if len(before) != len(entries):
        return None
    places = [*compress(count(), map(is_not, before, entries))]
    return places if all(before[place].path == entries[place].path for place in places) else None


def timeless(entry: Entry) -> Entry:
    """An entry of a tree whose times mean nothing."""
    return msgspec.structs.replace(entry, mtime_ns=0)


def _portions(paths: _Paths) -> list[_Paths]:
    portions: list[_Paths] = []
    start, room = 0, PORTION_BYTES
    for at, (_, there) in enumerate(paths):
        room -= there.size if there.kind == "file" else 0
        if room <= 0 or at - start + 1 == PORTION_FILES:
            portions.append(paths[start : at + 1])
            start, room = at + 1, PORTION_BYTES
    return [*portions, paths[start:]] if start < len(paths) else portions


class Attempts:
    """Attempts at placing a tree: the first sends what is known of it, all others wait for the rest.

    `send` is given the id of the attempt, that of its task, and what to serve.
    """

    def __init__(self, source: TreeSource, send: _Send) -> None:
        self._source = source
        self._send = send
        self._streams = source.growing is not None

    async def __call__(self, id: str) -> TaskReport:
        if not self._streams:
            return await self._send(id, id, await self._source.whole())
        self._streams = False
        with suppress(NotStreamed):
            report = await self._send(id, id, self._source)
            log.info("sent while the tree was hashed", task=id, tree=report.established.hex())
            return report
        # The agent may still be at the end of that task, so this is another.
        return await self._send(id, f"{id}w", await self._source.whole())
