"""Takes secret values out of what a command printed, also in base64 and in hexadecimal. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

MASK: Final = "***"

SHORTEST: Final = 4
"""Characters; what is shorter is not hidden, as that would hide half of any text."""

_LINE_END = r"\r?\n"
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]+(?:{_LINE_END}[A-Za-z0-9+/_-]+)*(?:(?:{_LINE_END})?={{1,2}})?")
_HEX = re.compile(rf"[0-9A-Fa-f]{{2,}}(?:(?:[ :]|{_LINE_END})[0-9A-Fa-f]{{2,}})*")
_BETWEEN = re.compile(rf"[ :=]|{_LINE_END}")
_URL_SAFE = str.maketrans("-_", "+/")


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` with `***` for each of the secrets, and for each run of base64 or hexadecimal digits that says
    one. Such a run is read from each of its first digits on, as it may be the rest of a longer one.
    """
    pieces = sorted({each for each in secrets if len(each) >= SHORTEST}, key=len, reverse=True)
    if not pieces:
        return text
    coded = [piece.encode() for piece in pieces]
    bits = 8 * min(map(len, coded))

    def veil(said: Callable[[str], Iterator[bytes]], digit: int) -> Callable[[re.Match[str]], str]:
        def replace(run: re.Match[str]) -> str:
            digits = _BETWEEN.sub("", run.group())
            if len(digits) * digit < bits:  # most words: too short to say any of them
                return run.group()
            tells = any(piece in content for content in said(digits) for piece in coded)
            return MASK if tells else run.group()

        return replace

    for piece in pieces:
        text = text.replace(piece, MASK)
    return _HEX.sub(veil(_from_hex, 4), _BASE64.sub(veil(_from_base64, 6), text))


def _from_base64(digits: str) -> Iterator[bytes]:
    plain = digits.translate(_URL_SAFE)
    for skipped in range(4):
        rest = plain[skipped:]
        yield base64.b64decode(rest[: len(rest) - len(rest) % 4])
        if (left := len(rest) % 4) > 1:
            yield base64.b64decode(rest + "=" * (4 - left))


def _from_hex(digits: str) -> Iterator[bytes]:
    for skipped in range(2):
        rest = digits[skipped:]
        yield binascii.unhexlify(rest[: len(rest) - len(rest) % 2])
