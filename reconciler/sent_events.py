"""Reads server-sent events out of the bytes of an answer, however these are cut. Pure.

Our own primary sends them, so only what it uses of the form is understood; what else a proxy may put there,
comments and unknown fields, is passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_EVENT: Final = 1024 * 1024
"""Bytes of one event: a message has 4,096 characters, a log's excerpt four times as many."""


class TooLarge(ValueError):
    """An event is larger than any that a primary sends."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """`id` is empty where the event has none: whoever listens anew begins after the last one that had."""

    id: str
    event: str
    data: str


class SentEvents:
    """What came of one answer. An event that its end cuts off is none."""

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[SentEvent]:
        """The events that are whole with these bytes. Raises TooLarge."""
        # A line ends with a line feed alone: `splitlines` would also end it at characters of a message.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._take_size(line)
            if (event := self._line(line.removesuffix(b"\r").decode(errors="replace"))) is not None:
                yield event
        self._check(self._size + len(self._rest))

    def _take_size(self, line: bytes) -> None:
        self._size += len(line) + 1
        self._check(self._size)

    def _check(self, size: int) -> None:
        if size > MAX_EVENT:
            raise TooLarge(f"an event has more than {MAX_EVENT} bytes")

    def _line(self, line: str) -> SentEvent | None:
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields, self._size = self._fields, {}, 0
        if "data" not in fields:
            return None
        return SentEvent(fields.get("id", ""), fields.get("event", "message"), fields["data"])
