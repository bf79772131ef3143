"""Keeps file contents on the wire to a rate: token buckets, shared by what runs at the same time.

A bucket fills with its rate and holds a quarter of a second's worth. Whoever wants to send takes what it
needs, at once and into debt if need be, and waits until the debt is paid. So waiters are served in turn, a
frame that is larger than a bucket needs no special case, and a timer that wakes late costs nothing, because
the bucket filled meanwhile. Over any time it lets pass what its rate gives and one frame or bucket more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import trio

from agent.blocks import FRAME_TARGET, MAX_BLOCK, MIN_BLOCK

HELD_SECONDS = 0.25
"""What a bucket that nobody takes from holds, in seconds of its rate."""

FRAME_SECONDS = 0.125
"""Under a limit, frames are packed to take about this long, so that others' traffic gets between them."""

SLOW = 8 * 1024 * 1024
"""Bytes a second: compressing costs less time than it saves where a line takes no more than that."""

MEASURED_BYTES = 4 * 1024 * 1024
"""What has to have been sent before a line is held to be slow."""

SHARED_BY = 8
"""Tasks that are reckoned to share a bucket when it is said how long one may have to wait for a block."""


class Bucket:
    """Lets `rate` bytes a second pass, on average. It starts empty, so that a new one gives no burst."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = 0.0
        self._filled_at = trio.current_time()

    @property
    def rate(self) -> float:
        return self._rate

    def change(self, rate: float) -> None:
        """Another rate from now on, also for those that wait for their next frame."""
        self._fill()
        self._rate = rate
        self._tokens = min(self._tokens, rate * HELD_SECONDS)

    def reserve(self, size: int) -> float:
        """Takes `size`, perhaps into debt; the seconds until it may be sent."""
        self._fill()
        self._tokens -= size
        return max(0.0, -self._tokens / self._rate)

    def give_back(self, size: int) -> None:
        self._tokens += size

    def _fill(self) -> None:
        now = trio.current_time()
        self._tokens = min(self._rate * HELD_SECONDS, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now


@dataclass(frozen=True, slots=True)
class Throttle:
    """All the buckets that one task's contents have to pass; none: as fast as it goes."""

    buckets: tuple[Bucket, ...] = ()

    async def take(self, size: int) -> None:
        """Waits until `size` bytes may be sent."""
        delay = max((bucket.reserve(size) for bucket in self.buckets), default=0.0)
        if not delay:
            return
        try:
            await trio.sleep(delay)
        except trio.Cancelled:
            for bucket in self.buckets:
                bucket.give_back(size)
            raise

    @property
    def frame_bytes(self) -> int:
        """How large a frame of several blocks should be."""
        slowest = min((bucket.rate for bucket in self.buckets), default=FRAME_TARGET / FRAME_SECONDS)
        return round(min(max(slowest * FRAME_SECONDS, MIN_BLOCK), FRAME_TARGET))

    @property
    def patience(self) -> float:
        """Seconds that may pass between two frames because of the limit alone."""
        return max((SHARED_BY * MAX_BLOCK / bucket.rate for bucket in self.buckets), default=0.0)


FREELY = Throttle()


class Line:
    """How fast a peer takes what is sent to it: slow enough for compression to pay, or not."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._bytes = 0
        self._seconds = 0.0

    def took(self, size: int, seconds: float) -> None:
        self._bytes += size
        self._seconds += seconds

    @property
    def is_slow(self) -> bool:
        limited = any(bucket.rate <= SLOW for bucket in self._throttle.buckets)
        return limited or (self._bytes >= MEASURED_BYTES and self._bytes <= SLOW * self._seconds)


class Throttles:
    """The buckets of what is under way: one for each node of a project, and one for each node."""

    def __init__(self) -> None:
        self._buckets: WeakValueDictionary[tuple[str, str], Bucket] = WeakValueDictionary()

    def of(self, project: str, node: str, *, project_rate: float | None, node_rate: float | None) -> Throttle:
        """What a task of a project to a node has to pass. Rates that are new hold for those before too."""
        return Throttle(tuple(self._take([((project, node), project_rate), (("", node), node_rate)])))

    def _take(self, wanted: Iterable[tuple[tuple[str, str], float | None]]) -> Iterable[Bucket]:
        for key, rate in wanted:
            if rate is None:
                continue
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(rate)
            elif bucket.rate != rate:
                bucket.change(rate)
            yield bucket
