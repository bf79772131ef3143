"""A tree on the primary, scanned and hashed once, and served to any number of agents."""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import trio

from agent.blocks import MAX_REQUEST, block_count, block_length
from agent.errors import RemoteProtocolError
from agent.failures import single
from agent.index import tree_digest
from agent.ownership import NameRun, Names, owners_digest, spread
from agent.scan import Found, Scan, found_from, hash_files, scan
from agent.wire.bulk import PIECES, BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.channel import Channel
from agent.wire.messages import DEFLATE, NO_TIMES, RUNS, STREAM, Entry, SyncStart, Task, TaskReport
from reconciler.errors import LookFailed
from reconciler.sync.bandwidth import FREELY, Line, Throttle
from reconciler.sync.frames import Frame, Frames, Part, read_frame
from reconciler.sync.names import LocalNames, owned_by
from reconciler.sync.opened import opened
from reconciler.sync.parts import Parts, check_parts
from reconciler.sync.selection import Selection, check_sendable, entries_of, sendable_time, unsent
from reconciler.sync.telling import TreeRuns, out_of_place, send_index, with_owners

QUEUED_REQUESTS = 16
"""Requests of one agent that wait here; one that sends more waits until blocks have left."""

QUEUED_FRAMES = 1
"""Frames read ahead of the network, for each agent, besides one that is read and one that is sent."""

_Request = BlockRequest | DescribeBlocks
_Answer = Frame | BlockDescriptions

Compression = Literal["auto", "on", "off"]

_Digest = bytes


@dataclass(frozen=True, slots=True)
class TreeSource:
    """An index and where its blocks are. `bytes` counts the contents of its files.

    `entries` are in path order; `found` has the state of each file when it was read, so that one that
    changes later is not served as what it was. `warnings` names what can't be sent.
    `mtime_ns` is the directory's own. Without `times` those of the entries mean nothing, and are 0.
    """

    directory: Path
    entries: Sequence[Entry]
    tree: bytes
    files: int
    bytes: int
    warnings: tuple[str, ...]
    found: dict[str, Found]
    mtime_ns: int
    times: bool = True
    owned: tuple[NameRun, ...] = ()
    """Whose the entries are, where that counts."""
    owners: _Digest = b""
    """The digest of these names; empty where they do not count."""
    runs: TreeRuns = field(default_factory=TreeRuns, compare=False)
    throttle: Throttle = FREELY
    """What contents have to pass on their way to the agent."""
    compression: Compression = "off"
    frames: Frames = field(default_factory=Frames, compare=False)
    growing: "Growing | None" = field(default=None, compare=False, repr=False)
    """What becomes of it, where only the files that `entries` has by now are hashed."""

    def within(self, throttle: Throttle, compression: Compression = "off") -> "TreeSource":
        """The same tree, served no faster than that and perhaps compressed."""
        return replace(self, throttle=throttle, compression=compression)

    async def whole(self) -> "TreeSource":
        """The same with all its files hashed. Raises what hashing raised."""
        if self.growing is None:
            return self
        return (await self.growing.whole()).within(self.throttle, self.compression)

    def offered(self, task: Task) -> Task:
        """A task that tells the agent how this will be served."""
        packing, times = () if self.compression == "off" else (DEFLATE,), () if self.times else (NO_TIMES,)
        stream = () if self.growing is None else (STREAM,)
        features = (*task.features, RUNS, PIECES, *packing, *times, *stream)
        task = msgspec.structs.replace(task, features=features, patience=self.throttle.patience)
        return self.with_owners(task)

    def names(self) -> dict[str, Names]:
        """Whose the entries are, by path, where that counts."""
        return spread((entry.path for entry in self.entries), self.owned)

    def with_owners(self, task: Task) -> Task:
        """A task that tells the agent that owners count, where they do."""
        return with_owners(task, self.owners)

    @property
    def digest(self) -> str:
        """Of all that counts, in hex: the tree digest, unless owners count too."""
        return hashlib.sha256(self.tree + self.owners).hexdigest() if self.owners else self.tree.hex()

    @classmethod
    async def build(
        cls,
        directory: Path,
        *,
        ignore: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        reserved: Collection[str] = (),
        ignore_permissions: bool = False,
        owners: bool = False,
        root_fd: int | None = None,
        remembered: "Remembered | None" = None,
    ) -> "TreeSource":
        """Scans and hashes `directory`, in worker threads.

        `ignore`, `include` and `exclude` are gitignore lines; with `include`, only what matches it is
        taken, with the directories above. `reserved` are paths of rendered files, which win over
        files of the tree. With `owners`, owners and groups count, unless permissions are ignored.
        `root_fd` is the directory where the caller has it open; `remembered`, what spares reading again what
        did not change. Raises LookFailed where the directory can't be read, PathRefused for a name that can't
        be sent, TransferFailed where it changed while it was read.
        """
        with opened(directory, root_fd) as fd:
            selection = Selection(ignore, include, exclude, reserved)
            rules = _Rules(ignore_permissions, owners and not ignore_permissions)
            return await _build(directory, fd, selection, rules, remembered)


class Growing(Protocol):
    """A tree that is being hashed."""

    async def whole(self) -> TreeSource:
        """All of it, once it is known. Raises what kept it from that."""
        ...

    async def tell(self, channel: Channel, task: str) -> None:
        """Tells an agent of the tree as it becomes known."""
        ...


class Remembered(Protocol):
    """What earlier scans of a directory have found, as far as it still holds."""

    names: LocalNames
    found: Mapping[str, Found]
    """What would be sent, by the newest scan."""

    async def refreshed(
        self, root_fd: int, *, ignore_permissions: bool, owners: bool = False
    ) -> TreeSource | None:
        """The source of now, where a glance and what was known before are enough for it."""
        ...

    def scanned(self, scan: Scan, found: Mapping[str, Found], own: Collection[str]) -> None:
        """Takes what a scan found, what of that would be sent, and what would be but for its `own` name."""
        ...

    def whole(self, root_fd: int) -> TreeSource | None:
        """The source of an earlier scan that found exactly the same as the newest."""
        ...

    async def hash(self, root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        """As `hash_files`."""
        ...


@dataclass(frozen=True, slots=True)
class _Rules:
    ignore_permissions: bool
    owners: bool


async def _build(
    directory: Path,
    root_fd: int,
    selection: Selection,
    rules: _Rules,
    remembered: Remembered | None = None,
) -> TreeSource:
    if remembered is not None:
        known = await remembered.refreshed(
            root_fd, ignore_permissions=rules.ignore_permissions, owners=rules.owners
        )
        if known is not None:
            return known

    def walk() -> tuple[dict[str, Found], Collection[str]]:
        result = scan(root_fd, selection.leave_out, reserved=selection.reserved)
        found, own = selection.choose(result.found), selection.kept_back(result)
        check_sendable(found, {} if remembered is None else remembered.found)
        if remembered is not None:
            remembered.scanned(result, found, own)
        return found, own

    found, own = await trio.to_thread.run_sync(walk)
    if remembered is not None and (known := remembered.whole(root_fd)) is not None:
        return known
    files = sorted((path, there) for path, there in found.items() if there.kind == "file")
    contents = await (hash_files if remembered is None else remembered.hash)(root_fd, files)

    def finish() -> TreeSource:
        entries = entries_of(sorted(found.items()), contents, directory)
        names = LocalNames() if remembered is None else remembered.names
        owned, nameless = owned_by(found if rules.owners else {}, names)
        return TreeSource(
            directory=directory,
            entries=tuple(entries),
            tree=tree_digest(entries, ignore_permissions=rules.ignore_permissions),
            files=len(files),
            bytes=sum(there.size for _, there in files),
            warnings=(*unsent(found, own), *nameless),
            found=dict(files),
            mtime_ns=sendable_time(found_from(os.fstat(root_fd))),
            owned=owned,
            owners=owners_digest(owned) if rules.owners else b"",
        )

    return await trio.to_thread.run_sync(finish)


async def serve_task(channel: Channel, source: TreeSource) -> TaskReport:
    """Answers an agent that got a task for this tree until it reports; the report is the result.

    The hub has sent the `Task`. Raises TransferFailed once the session is gone, RemoteProtocolError
    when the agent asks for what the index does not have or says what is out of place, LookFailed where
    the directory is gone, NotStreamed where this needs the whole tree.
    """
    try:
        root_fd = os.open(source.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LookFailed(f"cannot read the directory {source.directory}: {error.strerror}") from error
    serving = _Serving(channel, source, root_fd)
    try:
        return await serving.run()
    except BaseExceptionGroup as group:
        cause = single(group)
        if isinstance(cause, Exception):
            raise cause from group
        raise
    finally:
        os.close(root_fd)


class NotStreamed(Exception):
    """The agent can't take a tree that is still being hashed, or has something at the target."""


class _Serving:
    def __init__(self, channel: Channel, source: TreeSource, root_fd: int) -> None:
        self._channel = channel
        self._source = source
        self._root_fd = root_fd
        self._task = ""
        self._features: tuple[str, ...] = ()
        self._may_pack = False
        self._line = Line(source.throttle)

    async def run(self) -> TaskReport:
        message, _ = await self._channel.receive()
        if isinstance(message, TaskReport):
            return message
        if not isinstance(message, SyncStart):
            raise out_of_place(message)
        self._task, self._features = message.task, message.features
        self._may_pack = self._source.compression != "off" and DEFLATE in message.features
        if self._source.growing is None:
            await send_index(self._channel, self._source, message)
        elif not {STREAM, NO_TIMES} <= set(message.features):
            raise NotStreamed
        requests, take_requests = trio.open_memory_channel[_Request](QUEUED_REQUESTS)
        frames, take_frames = trio.open_memory_channel[_Answer](QUEUED_FRAMES)
        with self._source.frames.in_use():
            return await self._serve(requests, take_requests, frames, take_frames)

    async def _serve(
        self,
        requests: trio.MemorySendChannel[_Request],
        take_requests: trio.MemoryReceiveChannel[_Request],
        frames: trio.MemorySendChannel[_Answer],
        take_frames: trio.MemoryReceiveChannel[_Answer],
    ) -> TaskReport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, take_requests, frames)
            nursery.start_soon(self._send, take_frames)
            if self._source.growing is not None:
                nursery.start_soon(self._source.growing.tell, self._channel, self._task)
            report = await self._take_requests(requests)
            # Whatever is still queued was asked for by a task that has ended.
            nursery.cancel_scope.cancel()
        return report

    async def _take_requests(self, requests: trio.MemorySendChannel[_Request]) -> TaskReport:
        async with requests:
            while True:
                message, _ = await self._channel.receive()
                if isinstance(message, TaskReport):
                    return message
                if isinstance(message, SyncStart) and self._may_ask_again(message):
                    self._features = message.features
                    await send_index(self._channel, self._source, message)
                    continue
                if not isinstance(message, _Request) or message.task != self._task:
                    raise out_of_place(message)
                self._check(message)
                await requests.send(message)

    def _may_ask_again(self, start: SyncStart) -> bool:
        """What the agent has is no good: it asks once more, and for all."""
        return RUNS in self._features and RUNS not in start.features and self._source.growing is None

    def _check(self, request: _Request) -> None:
        entries = self._source.entries
        if isinstance(request, DescribeBlocks) or request.ranges:
            if PIECES not in self._features:
                raise RemoteProtocolError("the agent makes use of what it did not agree on")
            check_parts(request, entries)
            return
        if not 0 < len(request.blocks) <= MAX_REQUEST:
            raise RemoteProtocolError(f"a request for {len(request.blocks)} blocks")
        for ordinal, number in request.blocks:
            if not 0 <= ordinal < len(entries) or not 0 <= number < block_count(entries[ordinal].size):
                raise RemoteProtocolError(f"block {number} of entry {ordinal} was asked for and is none")

    async def _read(
        self,
        requests: trio.MemoryReceiveChannel[_Request],
        frames: trio.MemorySendChannel[_Answer],
    ) -> None:
        source = self._source

        async def read() -> Frame:
            from_files = partial(read_frame, self._root_fd, source.entries, source.found, part)
            return await trio.to_thread.run_sync(
                partial(from_files, packs=packs, shared=source.frames.shared)
            )

        parts = Parts(self._task, source, self._root_fd)
        async with requests, frames:
            async for request in requests:
                if isinstance(request, DescribeBlocks) or request.ranges:
                    await parts.answer(request, frames.send)
                    continue
                for part in self._frames_of(request.blocks):
                    packs = self._packs()
                    await frames.send(await source.frames.get(part, packs, read))

    def _packs(self) -> bool:
        """Whether frames are compressed now: always, or where the line is thin or seen to be slow."""
        if not self._may_pack or self._source.compression == "on":
            return self._may_pack
        return self._line.is_slow

    def _frames_of(self, blocks: Iterable[tuple[int, int]]) -> Iterable[Part]:
        """The blocks of a request with their lengths, packed into frames of about a MiB."""
        largest = self._source.throttle.frame_bytes
        part: list[tuple[int, int, int]] = []
        total = 0
        for ordinal, number in blocks:
            length = block_length(self._source.entries[ordinal].size, number)
            if part and total + length > largest:
                yield tuple(part)
                part, total = [], 0
            part.append((ordinal, number, length))
            total += length
        if part:
            yield tuple(part)

    async def _send(self, frames: trio.MemoryReceiveChannel[_Answer]) -> None:
        async with frames:
            async for frame in frames:
                if isinstance(frame, BlockDescriptions):
                    await self._channel.send(frame)
                    continue
                size = len(frame.payload)
                await self._source.throttle.take(size)
                began = trio.current_time()
                await self._channel.send(
                    BlockResponseBin(
                        task=self._task,
                        size=size,
                        blocks=frame.blocks,
                        ranges=frame.ranges,
                        unpacked=frame.unpacked,
                    ),
                    frame.payload,
                )
                self._line.took(size, trio.current_time() - began)
