"""What a child process prints: masked first, then cut into lines for a live view and kept in part.

Nothing here keeps or passes on a character that has not been through the masker.
"""

import codecs
from collections import deque
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

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, text: str) -> list[str]:
        """The lines that are complete now; of one that has become too long, pieces."""
        # Only "\n" ends a line; a progress bar's "\r" would make a flood of lines.
        *complete, self._pending = (self._pending + text).split("\n")
        lines = [piece for line in complete for piece in _pieces(line.removesuffix("\r"))]
        if len(self._pending) > MAX_LINE:
            *pieces, self._pending = _pieces(self._pending)
            lines += pieces
        return lines

    def close(self) -> list[str]:
        """What came after the last line's end."""
        rest, self._pending = self._pending, ""
        return [rest] if rest else []


def _pieces(line: str) -> list[str]:
    return [line[start : start + MAX_LINE] for start in range(0, max(len(line), 1), MAX_LINE)]


class Capture:
    """Bytes from a child in; masked lines out, and a masked excerpt at the end."""

    def __init__(self, masker: Masker, max_output: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._mask = masker.stream()
        self._excerpt = Excerpt(max_output)
        self._lines = Lines()

    def feed(self, chunk: bytes | bytearray) -> list[str]:
        return self._take(self._mask.feed(self._decoder.decode(chunk)))

    def close(self) -> list[str]:
        rest = self._mask.feed(self._decoder.decode(b"", final=True)) + self._mask.close()
        return self._take(rest) + self._lines.close()

    def text(self) -> str:
        return self._excerpt.text()

    def _take(self, text: str) -> list[str]:
        self._excerpt.feed(text)
        return self._lines.feed(text)


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
