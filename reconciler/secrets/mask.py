"""Takes secret values out of what a child process prints, also where a value is encoded or cut in two.

Each value is looked for as it is, stripped, line by line, JSON-escaped, as shells quote it, percent-encoded,
in hexadecimal, and in base64 (also as part of a longer encoded text, and wrapped as `base64` and PEM do it).
A value of fewer than `MIN_VALUE` characters is not masked: `1`, `on` or `dev` would tear every log apart and
hide nothing.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from reconciler.secrets.values import MASK, Secret

MIN_VALUE = 4
"""Shortest value that is masked, in characters."""

_JAVASCRIPT_SAFE = "!'()*"
"""What `encodeURIComponent` leaves alone and Python does not."""

MIN_PART = 6
"""Shortest line of a multi-line value, or part of an encoded one, that is masked by itself."""

WRAPS = (76, 64)
"""Line lengths of `base64` (coreutils, MIME) and of PEM."""

HEX_WRAP = 60
"""Line length of `xxd -p`."""

_SPECIAL_TO_SHELLS = (
    re.compile(r"""[ !"$&'()*,;<>?\[\\\]^`{|}]|^[#~]|(?<=[:=])~"""),
    re.compile(r"""[ !"#$%&'()*+,;<=>?@\[\\\]^`{|}~]"""),
    re.compile(r"""["$`\\]"""),
)
"""Before what bash puts a backslash, outside double quotes and within, and before what other shells may."""

_ANSI_C = {
    **{chr(code): f"\\{code:03o}" for code in (*range(1, 32), 127)},
    "\a": "\\a",
    "\b": "\\b",
    "\x1b": "\\E",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    "'": "\\'",
}
"""What stands for a character between `$'` and `'`."""


class Masker:
    """Knows secret values and replaces them. Its repr shows none."""

    __slots__ = ("_forms",)

    def __init__(self, values: Iterable[Secret]) -> None:
        forms = {form for value in values for form in _forms(value.reveal())}
        # The longest first only so that the order does not depend on hashing.
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def __repr__(self) -> str:
        return f"Masker({len(self._forms)} forms)"

    def mask(self, text: str) -> str:
        """The text with each stretch that any form covers replaced by `***`."""
        return self._render(text, 0, len(text))[0]

    def stream(self) -> "MaskStream":
        """For a text that comes in pieces; one stream for each text."""
        return MaskStream(self)

    def _covered(self, text: str) -> list[tuple[int, int]]:
        """Stretches to replace, in order; overlapping ones are one, so that no end of either remains."""
        found: list[tuple[int, int]] = []
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = text.find(form, start + 1)
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return merged

    def _settled(self, text: str) -> int:
        """Where the first form may start that is not complete yet; the length of the text if none does."""
        settled = len(text)
        for form in self._forms:
            start = text.find(form[0], max(0, len(text) - len(form) + 1), settled)
            while start >= 0:
                if form.startswith(text[start:]):
                    settled = start
                    break
                start = text.find(form[0], start + 1, settled)
        return settled

    def _render(self, text: str, skip: int, settled: int) -> tuple[str, int]:
        """The masked text from `skip` to `settled`, and how far the text is said with it.

        What stands before `skip` was covered by a mask that is already written; a stretch that starts there
        belongs to it. The second number is more than `settled` where a stretch reaches over it.
        """
        pieces: list[str] = []
        said = skip
        for start, end in self._covered(text):
            if start >= settled:
                break
            if start >= skip:
                pieces += (text[said:start], MASK)
            said = max(said, end)
        return "".join((*pieces, text[said:settled])), max(said, settled)


class MaskStream:
    """Masks one text that comes in pieces. It holds back less than the longest form."""

    __slots__ = ("_held", "_masker", "_skip")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = ""
        self._skip = 0
        """Characters of `_held` that a mask already written covers."""

    def __repr__(self) -> str:
        return "MaskStream()"

    def feed(self, text: str) -> str:
        """What can be passed on now; an end that may be the start of a secret is held back."""
        self._held += text
        return self._pass_on(self._masker._settled(self._held))

    def close(self) -> str:
        """The rest; the stream is empty then."""
        return self._pass_on(len(self._held))

    def _pass_on(self, settled: int) -> str:
        ready, said = self._masker._render(self._held, self._skip, settled)
        self._held, self._skip = self._held[settled:], said - settled
        return ready


def _forms(value: str) -> Iterator[str]:
    """All texts that give the value away."""
    if len(value.strip()) < MIN_VALUE:
        return
    for text in {value, value.strip()}:
        yield text
        yield from _escaped(text)
        yield from _base64(text)
        yield from _hexadecimal(text)
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= MIN_PART:
                yield line
                yield from _escaped(line)


def _escaped(text: str) -> Iterator[str]:
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield from _quoted(text)
    raw = _raw(text)
    for encoded in (quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe=_JAVASCRIPT_SAFE)):
        yield encoded
        yield _lower_escapes(encoded)


def _quoted(text: str) -> Iterator[str]:
    """As shells (`set -x`, `printf %q`, `${name@Q}`) and Python's shlex write it, without the quotes."""
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    for special in _SPECIAL_TO_SHELLS:
        yield special.sub(r"\\\g<0>", text)
    escaped = "".join(_ANSI_C.get(character, character) for character in text)
    yield escaped
    # Without a locale, a shell knows bytes.
    yield "".join(
        character if character < "\x80" else "".join(f"\\{byte:03o}" for byte in _raw(character))
        for character in escaped
    )


def _raw(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a character, which JSON can write: no process gets such a value, but a log must not fail on it.
        return text.encode("utf-8", "surrogatepass")


def _hexadecimal(text: str) -> Iterator[str]:
    raw = _raw(text)
    for digits in (raw.hex(), raw.hex().upper()):
        yield digits
        if len(digits) > HEX_WRAP:
            lines = (digits[start : start + HEX_WRAP] for start in range(0, len(digits), HEX_WRAP))
            yield from (line for line in lines if len(line) >= MIN_PART)


def _lower_escapes(encoded: str) -> str:
    """Percent-encoding with lower-case hex digits, which is as valid."""
    head, *rest = encoded.split("%")
    return "%".join((head, *(part[:2].lower() + part[2:] for part in rest)))


def _base64(text: str) -> Iterator[str]:
    raw = _raw(text)
    for lead in range(3):
        # The value may stand anywhere in what was encoded (`user:password`): at each of the three
        # alignments these are the characters that do not depend on its neighbours.
        first, last = -(-lead * 8 // 6), (lead + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            part = encode(b"\0" * lead + raw)[first:last].decode()
            if len(part) >= MIN_PART:
                yield part
    whole = base64.b64encode(raw).decode().rstrip("=")
    for width in WRAPS:
        if len(whole) > width:
            yield from (
                part
                for start in range(0, len(whole), width)
                if len(part := whole[start : start + width]) >= MIN_PART
            )
