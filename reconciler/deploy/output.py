"""What a child process prints: masked first, then cut into lines for a live view and kept in part.

Nothing here keeps or passes on a character that has not been through the masker.
"""

import codecs
from collections import deque
from collections.abc import Callable
from typing import Protocol

MAX_LINE = 4096
"""Characters after which a line without an end is passed on in pieces."""

DEFAULT_MAX_OUTPUT = 64 * 1024
"""Characters of a child's output that are kept, half from its beginning and half from its end."""


class MaskStream(Protocol):
    """Masks one text that comes in pieces; a secret that lies across two pieces is found too."""

    def feed(self, text: str) -> str:
        """What can be passed on now; an end that may be the start of a secret is held back."""

    def close(self) -> str:
        """The rest."""


class Masker(Protocol):
    """Replaces the secret values it knows by `***`; `reconciler.secrets.mask.Masker` is one."""

    def mask(self, text: str) -> str: ...

    def stream(self) -> MaskStream: ...


class Excerpt:
    """The beginning and the end of a text of any length, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._head_room = limit // 2
        self._tail_limit = limit - limit // 2
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._left_out = 0

    def feed(self, text: str) -> None:
        if self._head_room:
            part, text = text[: self._head_room], text[self._head_room :]
            self._head.append(part)
            self._head_room -= len(part)
        if not text:
            return
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size > self._tail_limit:
            excess = self._tail_size - self._tail_limit
            first = self._tail.popleft()
            dropped = min(excess, len(first))
            if dropped < len(first):
                self._tail.appendleft(first[dropped:])
            self._tail_size -= dropped
            self._left_out += dropped

    def text(self) -> str:
        head, tail = "".join(self._head), "".join(self._tail)
        if not self._left_out:
            return head + tail
        return f"{head}\n… {self._left_out} characters left out …\n{tail}"


class Lines:
    """Cuts a text that comes in pieces into lines without their ends."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._pending = ""

    def feed(self, text: str) -> None:
        # Only "\n" ends a line; a progress bar's "\r" would make a flood of lines.
        *complete, self._pending = (self._pending + text).split("\n")
        for line in complete:
            self._emit(line.removesuffix("\r"))
        while len(self._pending) > MAX_LINE:
            piece, self._pending = self._pending[:MAX_LINE], self._pending[MAX_LINE:]
            self._on_line(piece)

    def close(self) -> None:
        if self._pending:
            self._emit(self._pending)
            self._pending = ""

    def _emit(self, line: str) -> None:
        for start in range(0, max(len(line), 1), MAX_LINE):
            self._on_line(line[start : start + MAX_LINE])


class Capture:
    """Bytes from a child in, masked lines and a masked excerpt out."""

    def __init__(self, masker: Masker, on_line: Callable[[str], None] | None, max_output: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._mask = masker.stream()
        self._excerpt = Excerpt(max_output)
        self._lines = Lines(on_line) if on_line is not None else None

    def feed(self, chunk: bytes) -> None:
        self._pass_on(self._mask.feed(self._decoder.decode(chunk)))

    def close(self) -> None:
        self._pass_on(self._mask.feed(self._decoder.decode(b"", final=True)) + self._mask.close())
        if self._lines is not None:
            self._lines.close()

    def text(self) -> str:
        return self._excerpt.text()

    def _pass_on(self, text: str) -> None:
        if not text:
            return
        self._excerpt.feed(text)
        if self._lines is not None:
            self._lines.feed(text)


_INVOKE_NOISE = ("Encountered a bad command exit code!", "Stdout: already printed", "Stderr: already printed")


def last_lines(output: str, *, lines: int = 4, limit: int = 400) -> str:
    """The end of an output on one line, for a message; without control characters and invoke's frame."""
    wanted: list[str] = []
    for line in reversed(output.splitlines()):
        clean = "".join(character if character.isprintable() else " " for character in line).strip()
        if clean and clean not in _INVOKE_NOISE:
            wanted.append(clean)
        if len(wanted) == lines:
            break
    text = " | ".join(reversed(wanted))
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]
