"""Gets blocks that are nowhere as a whole but mostly in an earlier version of their file.

The primary describes such blocks (`agent.pieces`); what is found of them here is put together, only the
rest is asked for, and the block's digest decides. It begins at the ends of each run of missing blocks,
where an insertion or an edit shows first, and goes on inwards only as long as that pays, so that a file
which is simply another one costs the description of two blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from agent.blocks import FRAME_TARGET, MAX_REQUEST, block_length, block_size_for
from agent.changes import Write
from agent.errors import RemoteProtocolError
from agent.failures import TaskFailed
from agent.filling import Filler, Wanted
from agent.folders import Folders
from agent.pieces import MAX_DESCRIBED, Description, Guess, runs, worth_refining
from agent.wire.bulk import BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.messages import AnyMessage

REFINERS = 4
"""Jobs that are worked on at once."""

ROUND_BYTES = 8 * 1024 * 1024
"""Bytes of blocks that one job puts together at once, in memory."""

_FURTHER = 8
"""Blocks at each end of a run that are taken at once, where the first ones paid."""

_PAYS = 0.5
"""Share of a block that has to be here already."""

Run = tuple[int, int, int]
"""Blocks of one file in a row: the ordinal of its entry, the first number and the one behind the last."""


def choose(
    missing: Iterable[Wanted], writes: Mapping[int, Write], filler: Filler
) -> tuple[list[Wanted], list[list[Run]]]:
    """Which of the missing blocks are simply asked for, and jobs for the others. Pure."""
    plain: list[Wanted] = []
    of_file: dict[int, list[int]] = {}
    for ordinal, number in missing:
        old = filler.old_of(ordinal)
        length = block_length(writes[ordinal].entry.size, number)
        if old is not None and worth_refining(length, old.size):
            of_file.setdefault(ordinal, []).append(number)
        else:
            plain.append((ordinal, number))
    todo = [(ordinal, *run) for ordinal, numbers in of_file.items() for run in runs(numbers)]
    jobs: list[list[Run]] = []
    while todo:
        job, todo = _fitting(todo, 1, writes)
        jobs.append(job)
    return plain, jobs


def _fitting(todo: Sequence[Run], width: int, writes: Mapping[int, Write]) -> tuple[list[Run], list[Run]]:
    """As many runs as can be begun at once, and the others."""
    room, left = ROUND_BYTES, MAX_DESCRIBED
    for at, (ordinal, first, last) in enumerate(todo):
        size = writes[ordinal].entry.size
        count = min(2 * bounded(width, size), last - first)
        room -= count * min(block_size_for(size), size)
        left -= count
        if at and (room < 0 or left < 0):
            return list(todo[:at]), list(todo[at:])
    return list(todo), []


def bounded(width: int, size: int) -> int:
    """How many of up to `width` blocks can be put together at each end of a file of `size` bytes."""
    return max(1, min(width, ROUND_BYTES // (2 * block_size_for(size))))


def ends(run: Run, width: int) -> tuple[list[Wanted], list[Run]]:
    """Up to `width` blocks at each end of a run, and what lies between. Pure."""
    ordinal, first, last = run
    if last - first <= 2 * width:
        return [(ordinal, number) for number in range(first, last)], []
    numbers = [*range(first, first + width), *range(last - width, last)]
    return [(ordinal, number) for number in numbers], [(ordinal, first + width, last - width)]


class Desk(Protocol):
    """What a refiner needs of the transfer that it belongs to."""

    async def say(self, message: AnyMessage) -> None: ...

    async def take_room(self, length: int) -> None:
        """Waits until the window has room for so many bytes more."""

    async def settle(self, complete: Sequence[int]) -> None:
        """Forgets files under way that are done."""

    async def shift(self, ordinal: int, numbers: Sequence[int], shifts: Sequence[int]) -> list[int]:
        """Takes blocks from the earlier version at other offsets; those that are not there."""

    async def ask(self, missing: Sequence[Wanted]) -> None:
        """Asks for whole blocks."""


@dataclass(slots=True)
class _Round:
    """Blocks that one job has asked about, until all answers are there."""

    waiting: set[Wanted]
    described: dict[Wanted, Description | None] = field(default_factory=dict)
    guesses: dict[Wanted, Guess] = field(default_factory=dict)
    ranges: int = 0
    """Ranges that were asked for and have not come."""
    changed: trio.Event = field(default_factory=trio.Event)


class Refiner:
    """`choose` makes the jobs, `work` does one; several may be done at once. What comes from the primary
    is handed in by `take_descriptions` and `take_ranges`, as long as something is `pending`."""

    def __init__(
        self,
        desk: Desk,
        task: str,
        writes: Mapping[int, Write],
        filler: Filler,
        root_fd: int,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._desk = desk
        self._task = task
        self._writes = writes
        self._filler = filler
        self._root_fd = root_fd
        self._limiter = limiter
        self._rounds: dict[Wanted, _Round] = {}
        self._ranges: dict[tuple[int, int], tuple[int, Guess, _Round]] = {}
        self._shifts: dict[int, list[int]] = {}
        """Of each file, where whole blocks were looked for."""

    @property
    def pending(self) -> bool:
        return bool(self._rounds or self._ranges)

    # --- one job -------------------------------------------------------------------------------

    async def work(self, job: Sequence[Run]) -> None:
        """Completes the blocks of a job as far as that pays, and asks for the others."""
        todo, width = list(job), 1
        while todo:
            now, todo = _fitting(todo, width, self._writes)
            asked: list[Wanted] = []
            between: list[Run] = []
            for run in now:
                wanted, inner = ends(run, bounded(width, self._writes[run[0]].entry.size))
                asked += wanted
                between += inner
            whole, gains, shifts = await self._round(asked)
            for ordinal, first, last in between:
                numbers = list(range(first, last))
                if new := self._untried(ordinal, shifts.get(ordinal, ())):
                    numbers = await self._desk.shift(ordinal, numbers, new)
                if len(numbers) < last - first or gains.get(ordinal, 0.0) >= _PAYS:
                    todo += [(ordinal, *run) for run in runs(numbers)]
                else:
                    whole += [(ordinal, number) for number in numbers]
            if whole:
                await self._desk.ask(sorted(whole))
            width = _FURTHER

    def _untried(self, ordinal: int, shifts: Iterable[int]) -> list[int]:
        tried = self._shifts.setdefault(ordinal, [0, *self._filler.shifts(ordinal)])
        new = [shift for shift in shifts if shift not in tried]
        tried += new
        return new

    async def _round(
        self, asked: Sequence[Wanted]
    ) -> tuple[list[Wanted], dict[int, float], dict[int, list[int]]]:
        """Completes blocks with as little as possible. Those that have to be asked for as a whole; by file
        what share was here, and at which shifts."""
        round = _Round(set(asked))
        self._rounds.update(dict.fromkeys(asked, round))
        await self._desk.say(DescribeBlocks(task=self._task, blocks=tuple(asked)))
        await round.changed.wait()
        await trio.to_thread.run_sync(self._guess, round, limiter=self._limiter)
        total: dict[int, int] = {}
        found: dict[int, int] = {}
        shifts: dict[int, list[int]] = {}
        whole = [wanted for wanted in asked if wanted not in round.guesses]
        for wanted, guess in round.guesses.items():
            ordinal, length = wanted[0], len(guess.content)
            total[ordinal] = total.get(ordinal, 0) + length
            found[ordinal] = found.get(ordinal, 0) + length - sum(size for _, size in guess.ranges())
            shifts.setdefault(ordinal, []).extend(guess.shifts)
        gains = {ordinal: found[ordinal] / total[ordinal] for ordinal in total}
        for wanted in [wanted for wanted, guess in round.guesses.items() if not guess.shifts]:
            whole.append(wanted)
            del round.guesses[wanted]
        await self._fetch(round)
        bad, complete = await trio.to_thread.run_sync(self._place, round, limiter=self._limiter)
        await self._desk.settle(complete)
        return whole + bad, gains, shifts

    def _guess(self, round: _Round) -> None:
        with self._filler.reader() as reader:
            for (ordinal, number), description in round.described.items():
                if description is None:
                    continue
                size = self._writes[ordinal].entry.size
                guess = Guess(
                    number * block_size_for(size), bytearray(block_length(size, number)), description
                )

                def read(offset: int, length: int, ordinal: int = ordinal) -> memoryview:
                    return self._filler.read_old(reader, ordinal, offset, length)

                guess.fill(read, [0, *self._filler.shifts(ordinal), *self._shifts.get(ordinal, ())])
                round.guesses[ordinal, number] = guess

    async def _fetch(self, round: _Round) -> None:
        """Gets what is missing of the guesses."""
        wanted = [
            (ordinal, guess.at + offset, length, guess)
            for (ordinal, _), guess in round.guesses.items()
            for offset, length in guess.ranges()
        ]
        if not wanted:
            return
        round.changed, round.ranges = trio.Event(), len(wanted)
        while wanted:
            count, total = 0, 0
            while count < min(len(wanted), MAX_REQUEST) and (not count or total < FRAME_TARGET):
                total += wanted[count][2]
                count += 1
            now, wanted = wanted[:count], wanted[count:]
            await self._desk.take_room(total)
            for ordinal, offset, length, guess in now:
                self._ranges[ordinal, offset] = (length, guess, round)
            ranges = tuple((ordinal, offset, length) for ordinal, offset, length, _ in now)
            await self._desk.say(BlockRequest(task=self._task, blocks=(), ranges=ranges))
        await round.changed.wait()

    def _place(self, round: _Round) -> tuple[list[Wanted], list[int]]:
        """Writes what its digest confirms; the blocks that it does not, and the files that are done."""
        bad: list[Wanted] = []
        complete: list[int] = []
        with Folders(self._root_fd) as folders:
            for (ordinal, number), guess in round.guesses.items():
                if not self._filler.matches(ordinal, number, guess.content):
                    bad.append((ordinal, number))
                    continue
                sent = sum(length for _, length in guess.ranges())
                self._filler.count(len(guess.content) - sent, whole=False)
                if self._filler.put(folders, ordinal, number, guess.content):
                    complete.append(ordinal)
        return bad, complete

    # --- answers -------------------------------------------------------------------------------

    def take_descriptions(self, message: BlockDescriptions) -> None:
        for ordinal, number, digests, anchors in message.blocks:
            round = self._rounds.pop((ordinal, number), None)
            if round is None:
                raise RemoteProtocolError(f"block {number} of entry {ordinal} was described, unasked")
            description = Description(digests, anchors) if digests or anchors else None
            length = block_length(self._writes[ordinal].entry.size, number)
            if description is not None and not description.fits(length):
                raise RemoteProtocolError(f"the description of block {number} of entry {ordinal} is none")
            round.described[ordinal, number] = description
            round.waiting.discard((ordinal, number))
            if not round.waiting:
                round.changed.set()

    def take_ranges(self, message: BlockResponseBin, payload: bytes) -> int:
        """Takes what a frame holds; how many bytes of room that gives back."""
        view = memoryview(payload)
        at = 0
        for ordinal, offset, length in message.ranges:
            expected, guess, round = self._ranges.pop((ordinal, offset), (0, None, None))
            if guess is None or round is None:
                raise RemoteProtocolError(f"bytes at {offset} of entry {ordinal} came and were not asked for")
            if length == -1:
                raise changed_at_source(self._writes[ordinal].entry.path)
            if length != expected or at + length > len(payload):
                raise RemoteProtocolError(f"the bytes at {offset} of entry {ordinal} have the wrong length")
            guess.content[offset - guess.at : offset - guess.at + length] = view[at : at + length]
            at += length
            round.ranges -= 1
            if not round.ranges:
                round.changed.set()
        if at != len(payload) or message.blocks or message.unpacked:
            raise RemoteProtocolError("a frame of ranges does not have the size it announced")
        return at


def changed_at_source(path: str) -> TaskFailed:
    return TaskFailed(
        "SourceChanged",
        f"{path!r} changed at the source while it was sent",
        hint="the next attempt takes it as it is then",
    )
