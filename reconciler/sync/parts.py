"""Describes blocks of which an agent may have the most already, and reads the parts that it has not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from agent.blocks import MAX_BLOCK, MAX_REQUEST, block_count, block_length, block_size_for
from agent.errors import RemoteProtocolError
from agent.folders import Folders
from agent.pieces import MAX_DESCRIBED, WORTH_REFINING, describe
from agent.wire.bulk import BlockDescriptions, BlockRequest, DescribeBlocks
from agent.wire.messages import Entry
from reconciler.sync.frames import UNSERVED, Frame, read_part

if TYPE_CHECKING:
    from reconciler.sync.serving import TreeSource

DESCRIBED_BYTES = 4 * 1024 * 1024
"""Bytes that are described in one call into a worker thread, if one block has not more."""

Range = tuple[int, int, int]
"""The ordinal of an entry, an offset, or the number of a block, and bytes."""

Described = tuple[int, int, bytes, bytes]
"""As in `BlockDescriptions`."""


def check_parts(request: DescribeBlocks | BlockRequest, entries: Sequence[Entry]) -> None:
    """Raises RemoteProtocolError for what no well-behaved agent asks for."""
    if isinstance(request, BlockRequest):
        if request.blocks or len(request.ranges) > MAX_REQUEST:
            raise RemoteProtocolError("a request for blocks and ranges, or for too many")
        for ordinal, offset, length in request.ranges:
            if (
                not 0 <= ordinal < len(entries)
                or not 0 < length <= MAX_BLOCK
                or not 0 <= offset <= entries[ordinal].size - length
            ):
                raise RemoteProtocolError(f"{length} bytes at {offset} of entry {ordinal} are none of it")
        return
    if not 0 < len(request.blocks) <= MAX_DESCRIBED:
        raise RemoteProtocolError(f"a request to describe {len(request.blocks)} blocks")
    for ordinal, number in request.blocks:
        if not 0 <= ordinal < len(entries) or not 0 <= number < block_count(entries[ordinal].size):
            raise RemoteProtocolError(f"block {number} of entry {ordinal} is none")
        if block_length(entries[ordinal].size, number) < WORTH_REFINING:
            raise RemoteProtocolError(f"block {number} of entry {ordinal} is too small to be described")


class Parts:
    """What one agent may ask of `source` beyond whole blocks; `root_fd` is its directory, which stays the
    caller's."""

    def __init__(self, task: str, source: TreeSource, root_fd: int) -> None:
        self._task = task
        self._source = source
        self._root_fd = root_fd

    async def answer(
        self,
        request: DescribeBlocks | BlockRequest,
        send: Callable[[Frame | BlockDescriptions], Awaitable[None]],
    ) -> None:
        """Answers a request that `check_parts` let through."""
        if isinstance(request, BlockRequest):
            for ranges in packed(request.ranges, self._source.throttle.frame_bytes):
                await send(await trio.to_thread.run_sync(self._read, ranges))
            return
        blocks = [
            (ordinal, number, block_length(self._source.entries[ordinal].size, number))
            for ordinal, number in request.blocks
        ]
        described: list[Described] = []
        for some in packed(blocks, DESCRIBED_BYTES):
            described += await trio.to_thread.run_sync(self._describe, some)
        await send(BlockDescriptions(task=self._task, blocks=tuple(described)))

    def _describe(self, blocks: Iterable[Range]) -> list[Described]:
        described: list[Described] = []
        with Folders(self._root_fd) as folders:
            for ordinal, number, length in blocks:
                offset = number * block_size_for(self._source.entries[ordinal].size)
                content = memoryview(bytearray(length))
                if self._fill(folders, ordinal, offset, content):
                    description = describe(content)
                    described.append((ordinal, number, description.digests, description.anchors))
                else:
                    described.append((ordinal, number, b"", b""))
        return described

    def _read(self, ranges: Sequence[Range]) -> Frame:
        payload = bytearray(sum(length for _, _, length in ranges))
        view = memoryview(payload)
        served: list[Range] = []
        at = 0
        with Folders(self._root_fd) as folders:
            for ordinal, offset, length in ranges:
                if self._fill(folders, ordinal, offset, view[at : at + length]):
                    served.append((ordinal, offset, length))
                    at += length
                else:
                    served.append((ordinal, offset, UNSERVED))
        view.release()
        del payload[at:]
        return Frame((), payload, ranges=tuple(served))

    def _fill(self, folders: Folders, ordinal: int, offset: int, view: memoryview) -> bool:
        entry = self._source.entries[ordinal]
        return read_part(folders, entry, self._source.found[entry.path], offset, view)


def packed(parts: Iterable[Range], largest: int) -> Iterator[list[Range]]:
    """Parts in groups of at most `largest` bytes, unless one alone has more. Pure."""
    group: list[Range] = []
    total = 0
    for part in parts:
        if group and total + part[2] > largest:
            yield group
            group, total = [], 0
        group.append(part)
        total += part[2]
    if group:
        yield group
