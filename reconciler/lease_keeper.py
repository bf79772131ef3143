"""Keeps the lease for one primary: takes it, renews it, tells when it is gone, and lets it go at the end.

Whatever acts does so inside `acting`: it begins only while the lease is surely ours, and is broken off before
anybody else can have it. Losing it raises LeaseLost there.
"""

import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, Protocol

import trio

from reconciler.errors import LeaseHeld, LeaseLost, SettingsError, TrueupError
from reconciler.lease import Lease, Take, Tenure, Timing, Watch, judge, released, renewed, watched
from reconciler.lease_holder import HolderFile
from reconciler.lease_ref import Found

log = logging.getLogger(__name__)

MOMENT: Final = 0.001
"""Seconds; the shortest sleep until a renewal."""


class Role(StrEnum):
    LEADER = "leader"
    UNSURE = "unsure"
    """It was the leader, could not renew the lease, and does not know whether another one has it now."""
    STANDBY = "standby"


def uptime() -> float:
    """Seconds that a clock which nobody sets counts, also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Place(Protocol):
    """Where a lease stands: `lease_ref.LeaseRef`."""

    newest: int

    async def read(self) -> Found: ...

    async def found(self, oid: str | None) -> Found: ...

    async def put(self, lease: Lease, *, expected: str | None) -> str | None: ...


class Keeper:
    """`host`: our name for people. `clock` and `wall` (seconds since 1970) can be replaced for tests."""

    def __init__(
        self,
        place: Place,
        memory: HolderFile,
        *,
        host: str,
        timing: Timing,
        clock: Callable[[], float] = uptime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.timing = timing
        self.seen: Lease | None = None
        """Whatever stood there last."""
        self.on_recovered: Callable[[], None] = lambda: None
        """Told when it is renewed again after that had failed."""
        self._place = place
        self._memory = memory
        self._host = host
        self._clock = clock
        self._wall = wall
        self._tenure: Tenure | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._taking = trio.Lock()
        self._change = trio.Event()

    # --- what is known -------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        if self._tenure is None:
            return Role.STANDBY
        return Role.LEADER if self._tenure.is_sure(self._clock(), self.timing) else Role.UNSURE

    @property
    def epoch(self) -> int:
        """The one that agents are shown: ours, or without the lease that of whoever has it."""
        if self._tenure is not None:
            return self._tenure.lease.epoch
        return max(self._memory.epoch, self.seen.epoch if self.seen is not None else 0)

    async def look(self, oid: str | None) -> None:
        """Know the epoch of a lease that was seen under an id; costs nothing where it is known."""
        if self._tenure is None and oid is not None and oid != self._memory.oid:
            self.seen = (await self._place.found(oid)).lease

    async def wait_change(self) -> None:
        """Until it is taken, renewed or lost."""
        await self._change.wait()

    # --- taking --------------------------------------------------------------------------------

    async def stand_by(self) -> None:
        """Wait until the lease is ours, as long as it takes; what keeps us from looking is logged."""
        watch, told = Watch(), ""
        while True:
            try:
                watch, wait = await self._attempt(watch)
                if wait is None:
                    return
                waits = f"standby: {self.leader} leads"
            except TrueupError as error:
                waits, wait = f"standby: cannot look at the lease: {error}", self.timing.look
            if waits != told:
                log.info(waits)
                told = waits
            await trio.sleep(min(wait, self.timing.look))

    async def claim(self, seen: str | None, taken: Callable[[], None] = lambda: None) -> bool:
        """Take the lease for a single pass, unless it is ours already. True: somebody may have acted since it
        was seen under the id `seen`, so that whatever was found out since then has to be looked at anew.
        `taken` is told where it was not ours: of several claims side by side only one takes it.

        Raises LeaseHeld where somebody else renews it, or does not let go of it for a minute.
        """
        async with self._taking:
            if self._tenure is not None:
                return False
            watch, began = Watch(), self._clock()
            first: Found | None = None
            held: Found | None = None
            while True:
                watch, wait = await self._attempt(watch)
                first = first or Found(watch.oid, self.seen)
                if wait is None:
                    taken()
                    return not first.oid == watch.oid == seen or not self._is_idle(first.lease)
                # Renewed, that is: one that was only just taken may be let go of soon.
                if held is None or not _same_tenure(held.lease, self.seen):
                    held = Found(watch.oid, self.seen)
                alive = watch.oid != held.oid
                if alive or self._clock() - began > self.timing.patience:
                    raise LeaseHeld(
                        f"{self.leader} acts on this repository now; nothing was done here",
                        hint="let it make the pass (`trueup serve` makes passes by itself), or stop it first",
                    )
                await trio.sleep(min(wait, self.timing.look))

    async def _attempt(self, watch: Watch) -> tuple[Watch, float | None]:
        """Look, and take it where it is to be had. The seconds to wait otherwise; None: it is ours."""
        found = await self._place.read()
        now = self._clock()
        self.seen = found.lease
        watch = watched(watch, found.oid, now, found.lease)
        verdict = judge(
            found.lease,
            watch,
            now,
            me=self._memory.holder,
            host=self._host,
            timing=self.timing,
            # Above every epoch there may have been: one that is counted on grows far less than once a second.
            first_epoch=max(self._memory.epoch + 1, self._place.newest + 1, int(self._wall())),
        )
        if not isinstance(verdict, Take):
            return watch, verdict.seconds
        oid = await self._place.put(verdict.lease, expected=found.oid)
        if oid is None:
            # Others are after it too.
            return watch, random.uniform(0, self.timing.look)  # noqa: S311 - spreads writers
        self._tenure = Tenure(verdict.lease, oid, now)
        self.seen = verdict.lease
        self._remember(oid, verdict.lease)
        log.info("leading since epoch %d", verdict.lease.epoch)
        self._changed()
        return watch, None

    def _is_idle(self, lease: Lease | None) -> bool:
        """Whether nobody else can be acting for as long as exactly this lease stands there."""
        return lease is None or lease.released or lease.holder == self._memory.holder

    def _remember(self, oid: str, lease: Lease) -> None:
        try:
            self._memory.remember(oid, lease.epoch)
        except SettingsError as error:
            log.warning("the next process here may have to wait for the lease: %s", error)

    @property
    def leader(self) -> str:
        """Who leads, in words."""
        return f"the primary on {self.seen.host}" if self.seen is not None else "another primary"

    # --- keeping -------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Renew the lease until it is lost."""
        told = ""
        while (tenure := self._tenure) is not None:
            await self._sleep_until(tenure.since + self.timing.renew)
            while self._tenure is not None and self._tenure.since == tenure.since:
                try:
                    await self._renew()
                except TrueupError as error:
                    problem = str(error)
                    if problem != told:
                        log.warning("the lease cannot be renewed: %s", problem)
                        told = problem
                    await self._pause(self.timing.retry)
            if told and self._tenure is not None:
                log.info("the lease is renewed again")
                self.on_recovered()
                told = ""

    async def _renew(self) -> None:
        """One attempt. Only one that succeeds counts, and from its beginning."""
        tenure = self._tenure
        assert tenure is not None
        began, lease = self._clock(), renewed(tenure.lease)
        oid = await self._place.put(lease, expected=tenure.oid)
        if oid is not None:
            self._set(Tenure(lease, oid, began))
            return
        found = await self._place.read()
        if found.oid is not None and found.lease is not None and tenure.is_ours(found.lease):
            # A renewal of ours whose answer was lost: the next one goes on from there.
            self._tenure = Tenure(found.lease, found.oid, tenure.since)
            return
        self.seen = found.lease
        self._lose(f"{self.leader} has taken the lease" if found.lease else "the lease was deleted")

    def _set(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self.seen = tenure.lease
        self._hold_to(tenure)
        self._changed()

    def _lose(self, why: str) -> None:
        log.error("no longer leading: %s; what was under way is broken off", why)
        self._tenure = None
        for scope in self._scopes:
            scope.cancel()
        self._changed()

    async def release(self) -> None:
        """Let the next one have it at once. Nothing of ours may be under way any more."""
        tenure = self._tenure
        if tenure is None:
            return
        lease, self._tenure = released(tenure.lease), None
        try:
            oid = await self._place.put(lease, expected=tenure.oid)
            if oid is None and tenure.is_ours((found := await self._place.read()).lease):
                # A renewal was broken off, and had come through.
                assert found.lease is not None
                lease = released(found.lease)
                oid = await self._place.put(lease, expected=found.oid)
            if oid is not None:
                self._remember(oid, lease)
        except TrueupError as error:
            log.warning("the lease could not be released, so the next primary waits: %s", error)
        self._changed()

    # --- acting --------------------------------------------------------------------------------

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """Where something is changed: entered while the lease is surely ours, left before it is another's.

        Raises LeaseLost where it is not ours, or ceases to be while the block is under way.
        """
        await self._wait_sure()
        scope = trio.CancelScope()
        self._scopes.add(scope)
        try:
            assert self._tenure is not None
            scope.deadline = self._deadline(self._tenure)
            with scope:
                yield
        finally:
            self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise self._lost()

    async def _wait_sure(self) -> None:
        """A renewal that is late may still come; who waits for it has begun nothing."""
        while (tenure := self._tenure) is not None and not tenure.is_sure(self._clock(), self.timing):
            with trio.move_on_at(self._deadline(tenure)) as limit:
                await self._change.wait()
            if limit.cancelled_caught:
                raise self._lost()
        if self._tenure is None:
            raise self._lost()

    def _lost(self) -> LeaseLost:
        if self._tenure is None:
            return LeaseLost("this primary does not lead", hint=f"{self.leader} does")
        return LeaseLost(
            f"the lease could not be renewed for {self._clock() - self._tenure.since:.0f} seconds",
            hint="see that the repository of the status branch can be reached and written",
        )

    def _deadline(self, tenure: Tenure) -> float:
        """The moment to stop, by trio's clock."""
        return trio.current_time() + tenure.stops_at(self.timing) - self._clock()

    async def _sleep_until(self, moment: float) -> None:
        while (left := moment - self._clock()) > 0:
            # Never so little that adding it to a clock leaves the clock where it is.
            await self._pause(max(min(left, self.timing.retry), MOMENT))

    async def _pause(self, seconds: float) -> None:
        """trio's clock stands still while the machine sleeps, and ours does not: what is under way is held to
        ours as soon as it wakes."""
        await trio.sleep(seconds)
        if self._tenure is not None:
            self._hold_to(self._tenure)

    def _hold_to(self, tenure: Tenure) -> None:
        for scope in self._scopes:
            scope.deadline = self._deadline(tenure)

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()


def _same_tenure(one: Lease | None, other: Lease | None) -> bool:
    """Whether two leases, one seen after the other, are of the same holder, who has not let go of it."""
    if one is None or other is None or one.released or other.released:
        return False
    return (one.holder, one.epoch) == (other.holder, other.epoch)
