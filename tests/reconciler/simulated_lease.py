"""A lease that several primaries are after, in simulated time: the ref, ways to it, the life of a primary."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from reconciler.errors import GitUnavailable, LeaseLost, LeaseRewound
from reconciler.lease import Lease, Timing
from reconciler.lease_holder import HolderFile
from reconciler.lease_keeper import Keeper, Role
from reconciler.lease_ref import Found

TIMING = Timing()
GRACE = 6.0
"""Seconds that a step takes to end that was told to."""


@dataclass
class Remote:
    """The ref in a repository far away. Its ids are those of the content, as git's are."""

    lease: Lease | None = None
    acting: set[str] = field(default_factory=set)
    acted: int = 0
    """How often somebody did."""

    @property
    def oid(self) -> str | None:
        return None if self.lease is None else repr(self.lease)


class Way:
    """One primary's way to the ref: implements what `LeaseRef` has, with delays and faults."""

    def __init__(self, remote: Remote, faults: Iterator[tuple[float, float, str]] | None = None) -> None:
        self._remote = remote
        self._faults = faults
        self.newest = 0
        self.cut = False

    async def read(self) -> Found:
        before, after, fault = self._fault()
        await self._travel(before, fault == "lost")
        found = Found(self._remote.oid, self._remote.lease)
        await self._travel(after, fault in ("lost", "answer lost"))
        if found.lease is not None:
            if found.lease.epoch < self.newest:
                raise LeaseRewound("set back")
            self.newest = found.lease.epoch
        return found

    async def found(self, _oid: str | None) -> Found:
        return await self.read()

    async def put(self, lease: Lease, *, expected: str | None) -> str | None:
        before, after, fault = self._fault()
        await self._travel(before, fault == "lost")
        won = self._remote.oid == expected or self._remote.lease == lease
        if won:
            self._remote.lease = lease
        await self._travel(after, fault == "answer lost")
        return repr(lease) if won else None

    def _fault(self) -> tuple[float, float, str]:
        return next(self._faults) if self._faults is not None else (0.1, 0.1, "")

    async def _travel(self, seconds: float, lost: bool) -> None:
        with trio.move_on_after(TIMING.deadline):
            await trio.sleep(seconds)
            if not lost and not self.cut:
                return
            await trio.sleep_forever()
        raise GitUnavailable("no answer")


def make(remote: Remote, directory: Path, name: str, **options: Any) -> Keeper:
    (directory / name).mkdir(exist_ok=True)
    way = options.pop("way", None) or Way(remote)
    return Keeper(
        way,
        HolderFile.open(directory / name),
        host=name,
        timing=TIMING,
        **({"clock": trio.current_time, "wall": lambda: 1000.0} | options),
    )


def in_simulated_time(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


def role(keeper: Keeper) -> Role:
    return keeper.role


async def act(keeper: Keeper, remote: Remote, name: str, seconds: float, grace: float = GRACE) -> None:
    """A step of some length, which takes its time to end when it is broken off."""
    async with keeper.acting():
        assert not remote.acting, f"{name} begins while {remote.acting} is at work"
        remote.acting.add(name)
        remote.acted += 1
        try:
            await trio.sleep(seconds)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(grace)
            remote.acting.discard(name)


async def lead(keeper: Keeper, remote: Remote, name: str, steps: Iterator[float]) -> None:
    """The life of a primary: it waits for the lease, acts, loses it, waits again."""
    while True:
        await keeper.stand_by()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.keep)
            with suppress(LeaseLost):
                while role(keeper) is not Role.STANDBY:
                    await act(keeper, remote, name, next(steps))
                    await trio.sleep(1)
            while role(keeper) is not Role.STANDBY:
                # It stays unsure until it knows: it may still be the holder.
                await keeper.wait_change()
                if role(keeper) is Role.LEADER:
                    break
            nursery.cancel_scope.cancel()
