"""What is under way right now, in memory alone: it changes too often to be written down."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from agent.routing import Traffic
from agent.wire.messages import PHASES, TaskProgress
from reconciler.progress import Progress

Measure = Callable[[], Traffic]

_MOST: Final = 2**62


@dataclass(slots=True)
class _Attempt:
    number: int
    total_bytes: int
    measure: Measure
    resource: str
    moved_at: float
    told: TaskProgress | None = None
    seen: tuple[int, int] = (0, 0)


class Running:
    """The attempts that run on the agents of one primary; used by its trio thread alone."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    @contextmanager
    def attempt(
        self, task: str, number: int, total_bytes: int, measure: Measure, *, resource: str = ""
    ) -> Iterator[None]:
        """For as long as an attempt runs; a task has one at a time."""
        self._attempts[task] = _Attempt(number, total_bytes, measure, resource, trio.current_time())
        try:
            yield
        finally:
            del self._attempts[task]

    def heard(self, task: str, told: TaskProgress) -> None:
        """The agent tells how far it is; only the newest word counts."""
        attempt = self._attempts.get(task)
        if attempt is not None and attempt.told != told:
            attempt.told, attempt.moved_at = told, trio.current_time()

    def all(self) -> list[Progress]:
        """Of all that run, in the order in which they began."""
        return [found for task in self._attempts if (found := self.progress(task)) is not None]

    def progress(self, task: str) -> Progress | None:
        """None where nothing of that task runs."""
        attempt = self._attempts.get(task)
        if attempt is None:
            return None
        traffic = attempt.measure()
        if attempt.seen != (seen := (traffic.sent, traffic.received)):
            attempt.seen, attempt.moved_at = seen, trio.current_time()
        told = attempt.told or TaskProgress(task=task)
        files, size = _within(told.files_total, _MOST), _within(told.bytes_total, _MOST)
        return Progress(
            task,
            attempt.number,
            attempt.total_bytes,
            traffic.sent,
            traffic.received,
            resource=attempt.resource,
            phase=told.phase if told.phase in PHASES else "",
            files_done=_within(told.files_done, files),
            files_total=files,
            bytes_done=_within(told.bytes_done, size),
            bytes_total=size,
            still_seconds=int(trio.current_time() - attempt.moved_at),
        )


def _within(count: int, most: int) -> int:
    """What an agent says, as a number that can be shown."""
    return min(max(count, 0), most)
