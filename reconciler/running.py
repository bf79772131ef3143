"""What is under way right now, in memory alone: it changes too often to be written down."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.routing import Traffic

Measure = Callable[[], Traffic]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is. Bytes as they are on the wire, in both directions.

    `total_bytes` is how large the tree is: all of it is sent only to a target that has nothing of it.
    """

    task: str
    attempt: int
    total_bytes: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class _Attempt:
    number: int
    total_bytes: int
    measure: Measure


class Running:
    """The attempts that run on the agents of one primary; used by its trio thread alone."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    @contextmanager
    def attempt(self, task: str, number: int, total_bytes: int, measure: Measure) -> Iterator[None]:
        """For as long as an attempt runs; a task has one at a time."""
        self._attempts[task] = _Attempt(number, total_bytes, measure)
        try:
            yield
        finally:
            del self._attempts[task]

    def progress(self, task: str) -> Progress | None:
        """None where nothing of that task runs."""
        attempt = self._attempts.get(task)
        if attempt is None:
            return None
        traffic = attempt.measure()
        return Progress(task, attempt.number, attempt.total_bytes, traffic.sent, traffic.received)
