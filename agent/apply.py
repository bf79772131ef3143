"""Does the changes of a task, in the order that keeps each path at its old or its new content."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import trio

from agent import rendered
from agent.changes import Changes
from agent.errors import TransferFailed
from agent.failures import single
from agent.features import agreed
from agent.index import parent_of
from agent.libc import sync_file_system
from agent.look import View
from agent.pulse import FLUSH_SECONDS, Measured, enter, quiet
from agent.reuse import Shelf, find_sources
from agent.rules import AgentRules
from agent.staging import leftovers
from agent.transfer import Transfer
from agent.wire.channel import Channel
from agent.wire.messages import Entry, RenderedContent, Task
from agent.writer import Writer

BATCH = 512
"""Entries that one call into a worker thread handles; cancellation waits for it."""

Item = TypeVar("Item")


class Application:
    """One task's changes, made through `writer`; how far it came can be read off it at any time.

    `shelves` are directories besides the target, on its file system, from which blocks may be taken;
    `fetched` is the transfer that has filled staging already; `ordinals`, where `run` gets a part of the
    index, are the places of its entries in all of it.
    """

    def __init__(
        self,
        task: Task,
        channel: Channel,
        rules: AgentRules,
        writer: Writer,
        view: View,
        shelves: Sequence[Shelf] = (),
        *,
        fetched: Transfer | None = None,
        ordinals: Mapping[str, int] | None = None,
    ) -> None:
        self._task = task
        self._channel = channel
        self._rules = rules
        self._writer = writer
        self._view = view
        self._shelves = shelves
        self.bytes_received = self.bytes_reused = 0
        self.blocks_requested = self.blocks_reused = 0
        self._transfer = self._fetched = fetched
        self._ordinals = ordinals
        self.warnings: list[str] = []

    async def run(
        self, index: Sequence[Entry], changes: Changes, differing: Sequence[RenderedContent]
    ) -> None:
        """What is in the way goes first; then come directories, new files and links, and, once all of
        them are complete, replacements; then what the tree no longer has; rendered files; and last the
        times and modes of directories. Raises what the writer, the transfer and the channel raise."""
        writer = self._writer
        size, touched = await trio.to_thread.run_sync(_sized_up, changes)
        enter("copy", self._measure_of(changes, len(differing), size))
        if self._fetched is None:
            await trio.to_thread.run_sync(writer.open_staging)
        unlocked = await trio.to_thread.run_sync(lambda: writer.unlock_folders(_folders_of(changes)))
        await _in_batches(writer.save, changes.save_first)
        await _in_batches(writer.clear, changes.remove_first)
        await _in_batches(writer.make_folders, changes.folders)
        await self._fetch(index, changes)
        enter("place", self._measure_of(changes, len(differing), size))

        await _in_batches(writer.make_links, changes.links)
        if self._task.durability != "none" and writer.waiting:
            # What is renamed must be on the disk before its new name is, or a crash loses both.
            with quiet(FLUSH_SECONDS):
                await trio.to_thread.run_sync(sync_file_system, writer.root_fd)
        while writer.waiting:
            await trio.to_thread.run_sync(writer.commit, BATCH)
        await _in_batches(writer.touch, touched)
        await _in_batches(writer.save, changes.save_last)
        await _in_batches(writer.delete, changes.delete)
        if differing:
            self.warnings += await trio.to_thread.run_sync(
                rendered.place, writer, differing, self._rules.owners
            )
        await trio.to_thread.run_sync(self._finish_folders, index, unlocked)

    def _finish_folders(self, index: Sequence[Entry], unlocked: Sequence[Entry]) -> None:
        """Gives all directories of the tree its times and modes; what was unlocked is locked again."""
        folders = [entry for entry in index if entry.kind == "directory"]
        modes = not self._task.ignore_permissions
        of_index = {entry.path for entry in folders} if modes else set()
        self._writer.finish_folders([entry for entry in unlocked if entry.path not in of_index], modes=True)
        self._writer.finish_folders(folders, modes=modes)

    def _measure_of(self, changes: Changes, rendered_files: int, total: int) -> Callable[[], Measured]:
        files = len(changes.writes) + len(changes.links) + rendered_files
        going = len(changes.remove_first) + len(changes.delete)

        def measure() -> Measured:
            done = self._writer.written + self._writer.deleted
            transfer = self._transfer
            there = transfer.bytes_received + transfer.bytes_reused if transfer is not None else 0
            return Measured(min(done, files + going), files + going, min(there, total), total)

        return measure

    async def _fetch(self, index: Sequence[Entry], changes: Changes) -> None:
        def prepare() -> Transfer:
            left = leftovers(self._writer.staging_fd, changes.writes)
            return Transfer(
                self._channel,
                self._task.id,
                self._writer,
                changes.writes,
                self._ordinals or {entry.path: ordinal for ordinal, entry in enumerate(index)},
                find_sources(
                    changes.writes,
                    [
                        Shelf(self._writer.root_fd, self._view.contents()),
                        Shelf(self._writer.staging_fd, left, partial=True),
                        *self._shelves,
                    ],
                ),
                paced=self._task.durability == "paced",
                patience=self._task.patience,
                features=agreed(self._task),
            )

        def plan_waiting() -> None:
            planned = {write.entry.path: write for write in changes.writes}
            self._writer.plan_waiting(planned, self._view.found)

        if self._fetched is not None:
            await trio.to_thread.run_sync(plan_waiting)
            self._count(self._fetched)
            return
        if not changes.writes:
            return
        self._transfer = transfer = await trio.to_thread.run_sync(prepare)
        try:
            await transfer.run()
        except BaseException as error:
            cause = single(error) if isinstance(error, BaseExceptionGroup) else error
            # The next attempt takes from there what came already.
            self._writer.keeps_staging = isinstance(cause, TransferFailed | trio.Cancelled)
            raise
        finally:
            self._count(transfer)

    def _count(self, transfer: Transfer) -> None:
        self.bytes_received, self.bytes_reused = transfer.bytes_received, transfer.bytes_reused
        self.blocks_requested, self.blocks_reused = transfer.blocks_requested, transfer.blocks_reused


async def _in_batches(work: Callable[[Sequence[Item]], object], items: Sequence[Item]) -> None:
    """Hands `items` to worker threads in bounded pieces, one after the other."""
    for start in range(0, len(items), BATCH):
        await trio.to_thread.run_sync(work, items[start : start + BATCH])


def _sized_up(changes: Changes) -> tuple[int, list[Entry]]:
    """How many bytes are to be written, and the files of which only times and modes change."""
    touched = [entry for entry in changes.touch if entry.kind == "file"]
    return sum(write.entry.size for write in changes.writes), touched


def _folders_of(changes: Changes) -> list[str]:
    """The directories in which something will be placed or removed."""
    paths = {*changes.removed(), *(entry.path for entry in changes.placed())}
    return sorted({parent_of(path) for path in paths} - {""})


def set_time(fd: int, mtime_ns: int) -> None:
    """Gives the target's own directory the time of the tree's; blocks."""
    os.utime(fd, ns=(mtime_ns, mtime_ns))
