"""Completes files with the blocks that this host has.

They are copied or shared, each verified before it counts, in several portions at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import trio

from agent.blocks import SMALL_BLOCKS
from agent.filling import CHUNK_FILES, Copy, Filler, Plan, Wanted, by_file
from agent.scan import WORKERS

SHIFT_PATIENCE = 16
"""Blocks that are looked for in vain where an insertion would have moved them, before that is given up."""


class Desk(Protocol):
    """What this needs of the transfer that it belongs to."""

    async def begin_all(self, ordinals: Iterable[int]) -> None:
        """Begins those of the files that have several blocks; waits where too many are under way."""

    async def settle(self, complete: Sequence[int]) -> None:
        """Forgets files under way that are done."""


class OwnBlocks:
    def __init__(
        self,
        desk: Desk,
        filler: Filler,
        *,
        limiter: trio.CapacityLimiter,
        small_limiter: trio.CapacityLimiter,
        shifts: bool,
    ) -> None:
        """`small_limiter` is for many small blocks, where threads are in each other's way; `shifts`: whether
        files have earlier versions, in which blocks may lie elsewhere."""
        self._desk = desk
        self._filler = filler
        self._limiter = limiter
        self._small_limiter = small_limiter
        self._shifts = shifts

    async def fill(self, plan: Plan) -> list[Wanted]:
        """Places what needs nothing from the primary; the blocks that do."""
        if plan.empty:
            await trio.to_thread.run_sync(self._filler.put_empty, plan.empty, limiter=self._limiter)
        for start in range(0, len(plan.holes), CHUNK_FILES):
            holes = plan.holes[start : start + CHUNK_FILES]
            await self._desk.begin_all(ordinal for ordinal, _ in holes)
            done = await trio.to_thread.run_sync(self._filler.put_holes, holes, limiter=self._limiter)
            await self._desk.settle(done)
        missing = plan.missing
        for portions in self._side_by_side(plan.copies):
            missing += await self._copy(portions)
        if not self._shifts:
            return sorted(missing)
        left: list[Wanted] = []
        for ordinal, numbers in by_file(sorted(missing)).items():
            shifts = self._filler.shifts(ordinal)
            left += [(ordinal, number) for number in await self.shift(ordinal, numbers, shifts)]
        return left

    async def shift(self, ordinal: int, numbers: Sequence[int], shifts: Sequence[int]) -> list[int]:
        """Takes blocks from the file's earlier version, where they lie at other offsets; those that are
        not there. It stops looking once it was in vain more often than not."""
        left = set(numbers)
        for shift in shifts:
            patience = SHIFT_PATIENCE
            for portions in self._side_by_side(self._filler.shifted(ordinal, sorted(left), shift)):
                tried = {number for portion in portions for _, number, _ in portion}
                unusable = {number for _, number in await self._copy(portions)}
                left -= tried - unusable
                patience += len(tried) - 2 * len(unusable)
                if patience < 0:
                    break
        return sorted(left)

    def _side_by_side(self, copies: Sequence[Copy]) -> Iterator[list[Sequence[Copy]]]:
        """Portions that are copied at the same time."""
        portions = iter(self._filler.portions(copies))
        while some := list(islice(portions, WORKERS)):
            yield some

    async def _copy(self, portions: Sequence[Sequence[Copy]]) -> list[Wanted]:
        """The blocks that were not as expected."""
        unusable: list[Wanted] = []

        async def copy(portion: Sequence[Copy]) -> None:
            limiter = self._small_limiter if len(portion) > SMALL_BLOCKS else self._limiter
            bad, complete = await trio.to_thread.run_sync(self._filler.copy, portion, limiter=limiter)
            unusable.extend(bad)
            await self._desk.settle(complete)

        async with trio.open_nursery() as nursery:
            for portion in portions:
                # It may wait for files of the portions before.
                await self._desk.begin_all(ordinal for ordinal, _, _ in portion)
                nursery.start_soon(copy, portion)
        return unusable
