"""Whether a task gets anywhere: counted where its work is done, so that the primary can be told.

Work is done far below the task, in worker threads: a block read, a directory entered. So the pulse of
a task is a context variable, which trio hands on to the threads and child tasks that a task starts.
Where there is none, as on the primary, a beat is nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import trio

FLUSH_SECONDS = 3600.0
"""How long it may take to write all that is dirty to a slow disk, which is one call without a beat."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How far something is; a total of 0 is not known."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


@dataclass(slots=True, eq=False)
class Pulse:
    """`beats` grows while work is done; it is 0 until the work begins.

    Threads may lose a beat to each other; that it grows is enough.
    """

    beats: int = 0
    quiet_until: float = float("-inf")
    """Until then no beat is expected."""
    phase: str = "wait"
    """What the task is at, one of `wire.messages.PHASES`."""
    measure: Callable[[], Measured] = Measured

    def install(self) -> None:
        """Makes this the pulse of the current task and of all that it starts from now on."""
        _current.set(self)
        self.phase = "look"
        self.beats += 1


_current: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


def beat() -> None:
    """Some work was done; quick enough for each block and each directory."""
    pulse = _current.get()
    if pulse is not None:
        pulse.beats += 1


def enter(phase: str, measure: Callable[[], Measured] = Measured) -> None:
    """The task goes over to another phase; `measure` says at any time, and quickly, how far that is."""
    pulse = _current.get()
    if pulse is not None:
        pulse.phase, pulse.measure = phase, measure
        pulse.beats += 1


@contextmanager
def quiet(seconds: float) -> Iterator[None]:
    """For a step that cannot be looked into and that may take `seconds`; in a trio task."""
    pulse = _current.get()
    if pulse is None:
        yield
        return
    pulse.quiet_until = trio.current_time() + seconds
    try:
        yield
    finally:
        pulse.quiet_until = float("-inf")
        pulse.beats += 1
