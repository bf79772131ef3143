"""Who may act: the lease as it stands in git, and what its holder and those who wait conclude from it. Pure.

No clock of another machine counts. A holder counts the seconds since it *began* the last renewal that it
knows to have succeeded; who waits counts the seconds since it *saw* the lease change for the last time. The
first is always the longer time, so that a holder has stopped before anybody takes over, however long git
takes to answer (docs/high-availability.md has the figures).
"""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

RENEW: Final = 15.0
"""Seconds between two renewals, unless the settings say otherwise."""

BEATS: Final = 16
"""Renewals count to this and begin again: an installation leaves so many objects in the repository, not one
for each renewal there ever was. A whole round takes four minutes."""

GAP: Final = 4
"""Who has not looked for so many renewals begins to count anew: it might take a later round for this one."""

VERSION: Final = 1


class Lease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What stands in the lease. Every renewal differs from the one before it."""

    version: int = VERSION
    holder: str
    """Of one state directory."""
    host: str
    """For people."""
    epoch: int
    """One more with each change of holder: agents refuse a primary with an older one."""
    beat: int = 0
    renew: float = RENEW
    """Seconds between this holder's renewals: those who wait are as patient as it needs."""
    released: bool = False
    """Nobody holds it: the next one need not wait."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What follows from the time between renewals; seconds."""

    renew: float = RENEW

    @property
    def retry(self) -> float:
        """Between attempts, after one that failed."""
        return self.renew / 10

    @property
    def deadline(self) -> float:
        """For one command of git: one that hangs must leave time for another attempt."""
        return max(5.0, self.renew / 2)

    @property
    def sure(self) -> float:
        """So long after a renewal began its holder begins new steps."""
        return 2 * self.renew

    @property
    def stop(self) -> float:
        """So long after it steps go on that were begun. What is left until `expiry` is for them to end."""
        return self.renew * 7 / 3

    @property
    def expiry(self) -> float:
        """So long nobody must have seen it change before another one takes it."""
        return 3 * self.renew

    @property
    def patience(self) -> float:
        """So long somebody who makes a single pass waits for a holder that seems to be dead."""
        return 4 * self.renew

    @property
    def look(self) -> float:
        """Between two looks of one that waits."""
        return self.renew / 3


@dataclass(frozen=True, slots=True)
class Watch:
    """For how long somebody has seen the same lease."""

    oid: str | None = None
    since: float = 0.0
    seen: float = float("-inf")
    """When it was looked at last."""


def watched(before: Watch, oid: str | None, at: float, lease: Lease | None) -> Watch:
    """After a look that ended at `at` and found `lease` as `oid`."""
    renew = lease.renew if lease is not None else RENEW
    if oid != before.oid or at - before.seen > GAP * renew:
        return Watch(oid, at, at)
    return replace(before, seen=at)


@dataclass(frozen=True, slots=True)
class Take:
    """It is to be had now: write `lease` over what was seen."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody has it, and may do so for these seconds at least."""

    seconds: float


def judge(
    lease: Lease | None, watch: Watch, now: float, *, me: str, host: str, timing: Timing, first_epoch: int
) -> Take | Wait:
    """What somebody does who wants the lease. `first_epoch`: where there is none to count on from.

    Our own name in it is that of a predecessor which is dead: its successor has the lock of its state
    directory. With it the epoch stays: no agent has seen another primary since.
    """
    if lease is None:
        return Take(Lease(holder=me, host=host, epoch=first_epoch, renew=timing.renew))
    patience = max(timing.expiry, Timing(lease.renew).expiry)
    if lease.released or lease.holder == me or now - watch.since >= patience:
        same = lease.holder == me
        return Take(
            Lease(
                holder=me,
                host=host,
                epoch=lease.epoch if same else lease.epoch + 1,
                beat=_after(lease.beat) if same else 0,
                renew=timing.renew,
            )
        )
    return Wait(watch.since + patience - now)


def renewed(lease: Lease) -> Lease:
    return msgspec.structs.replace(lease, beat=_after(lease.beat), released=False)


def released(lease: Lease) -> Lease:
    return msgspec.structs.replace(lease, beat=_after(lease.beat), released=True)


def _after(beat: int) -> int:
    return (beat + 1) % BEATS


@dataclass(frozen=True, slots=True)
class Tenure:
    """The lease in our hands: what we wrote last, and when the last renewal that succeeded had begun."""

    lease: Lease
    oid: str
    since: float

    def is_sure(self, now: float, timing: Timing) -> bool:
        """Whether nobody can have taken it, with time to spare for a step to begin."""
        return now - self.since < timing.sure

    def stops_at(self, timing: Timing) -> float:
        """When whatever is still under way has to be broken off, unless it is renewed until then."""
        return self.since + timing.stop

    def is_ours(self, lease: Lease | None) -> bool:
        """Whether what stands there is ours, also by a renewal whose answer was lost."""
        return (
            lease is not None
            and not lease.released
            and (lease.holder, lease.epoch) == (self.lease.holder, self.lease.epoch)
        )
