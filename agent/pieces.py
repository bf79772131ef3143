"""Parts of a block: what of it an older file holds, wherever that moved. Pure; reading is handed in.

A block that nobody has as a whole is often an old one with a little edit, or one that an insertion before
it has moved. So the primary describes it: by short digests of its **pieces**, and by some of its bytes, the
**anchors**. The agent looks for pieces at the **shifts** it knows (a shift is the old offset less the
new one), and where they are not it looks for anchors: where one is found, a shift is. What is put together
like that is no more than a guess until the block's own digest confirms it, which is why both may be short.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from agent.blocks import KIB, block_size_for

MIN_PIECE = 4 * KIB
PIECES = 256
"""Pieces of a block, at most."""

PIECE_DIGEST = 8
ANCHOR_BYTES = 16
ANCHORS = 9
"""Places in a block where it is quoted: evenly spread, from its first bytes to its last."""

WORTH_REFINING = 8 * MIN_PIECE
"""Bytes of the smallest block whose description pays: a smaller one is sent as fast."""

MAX_DESCRIBED = 256
"""Blocks that one request may ask to be described: the answer stays well below a control frame."""

FIRST_PROBES = (0, ANCHORS - 1, ANCHORS // 2)
"""Anchors that are looked for first; where none of them is in the old file, nothing else will be."""

REACH = 4 * KIB * KIB
"""How far from where it would be expected an anchor is looked for."""

MAX_HITS = 4
"""Places where an anchor is found, that are tried: some bytes are everywhere."""

_PLAIN = 4
"""Different bytes that an anchor has at least; a row of spaces or zeros says nothing."""

_SEARCH_STEP = KIB * KIB
_COMPARE_STEP = 64

Read = Callable[[int, int], memoryview]
"""The old file from an offset on, so many bytes, fewer where it ends; valid until the next call."""

Range = tuple[int, int]
"""An offset in a block and a number of bytes."""


def piece_size(length: int) -> int:
    """Bytes of a piece of a block of `length`; only its last piece may be short."""
    size = MIN_PIECE
    while size * PIECES < length:
        size *= 2
    return size


def piece_count(length: int) -> int:
    return -(-length // piece_size(length))


def anchor_offsets(length: int) -> list[int]:
    """Where a block of `length` bytes, at least WORTH_REFINING, is quoted."""
    return [(length - ANCHOR_BYTES) * number // (ANCHORS - 1) for number in range(ANCHORS)]


def piece_digest(content: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(content).digest()[:PIECE_DIGEST]


@dataclass(frozen=True, slots=True)
class Description:
    """What an agent is told of a block: the digests of its pieces and its anchors, each back to back."""

    digests: bytes
    anchors: bytes

    def fits(self, length: int) -> bool:
        """Whether it has the form of one of a block of `length` bytes."""
        return (
            len(self.digests) == piece_count(length) * PIECE_DIGEST
            and len(self.anchors) == ANCHORS * ANCHOR_BYTES
        )


def describe(block: memoryview) -> Description:
    size = piece_size(len(block))
    return Description(
        b"".join(piece_digest(block[at : at + size]) for at in range(0, len(block), size)),
        b"".join(block[at : at + ANCHOR_BYTES] for at in anchor_offsets(len(block))),
    )


def shifts_between(old_size: int, new_size: int) -> list[int]:
    """Where blocks of an old file may be that are not where they were: aligned from the end, and at the
    front too where the new file is cut into blocks of another size."""
    shifts = [old_size - new_size] if old_size != new_size else []
    if block_size_for(old_size) != block_size_for(new_size):
        shifts.append(0)
    return shifts


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Rising `numbers` as ranges, each from its first to behind its last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found


@dataclass(slots=True)
class Guess:
    """A block that is being put together in `content`, to lie at the offset `at` of the new file."""

    at: int
    content: bytearray
    description: Description
    shifts: list[int] = field(default_factory=list)
    """Those at which pieces were found."""
    missing: set[int] = field(default_factory=set)
    """The pieces that were found nowhere."""

    def __post_init__(self) -> None:
        self.missing = set(range(piece_count(len(self.content))))

    @property
    def size(self) -> int:
        return piece_size(len(self.content))

    def ranges(self) -> list[Range]:
        """What is missing, in order and in as few parts as can be."""
        length = len(self.content)
        return [
            (first * self.size, min(last * self.size, length) - first * self.size)
            for first, last in runs(sorted(self.missing))
        ]

    def digest(self, piece: int) -> bytes:
        return self.description.digests[piece * PIECE_DIGEST : (piece + 1) * PIECE_DIGEST]

    def fill(self, read: Read, shifts: Sequence[int]) -> None:
        """Takes what the old file has at `shifts`, and at those that anchors lead to."""
        tried: set[int] = set()
        for shift in shifts:
            self._take(read, shift, tried)
        anchors = anchor_offsets(len(self.content))
        order = [*FIRST_PROBES, *(number for number in range(ANCHORS) if number not in FIRST_PROBES)]
        for count, number in enumerate(order):
            if not self.missing or (count == len(FIRST_PROBES) and not self.shifts):
                return
            offset = anchors[number]
            if offset // self.size not in self.missing:
                continue
            anchor = self.description.anchors[number * ANCHOR_BYTES : (number + 1) * ANCHOR_BYTES]
            if len(set(anchor)) < _PLAIN:
                continue
            for place in find_anchor(read, anchor, [self.at + offset + shift for shift in (0, *shifts)]):
                self._take(read, place - self.at - offset, tried)

    def _take(self, read: Read, shift: int, tried: set[int]) -> None:
        if shift in tried:
            return
        tried.add(shift)
        before = len(self.missing)
        for first, last in runs(sorted(self.missing)):
            for start in range(first, last, _COMPARE_STEP):
                self._compare(read, shift, start, min(start + _COMPARE_STEP, last))
        if len(self.missing) < before:
            self.shifts.append(shift)

    def _compare(self, read: Read, shift: int, first: int, last: int) -> None:
        # What would lie before the old file's beginning is left out.
        first = max(first, -(-(-self.at - shift) // self.size))
        if first >= last:
            return
        start, end = first * self.size, min(last * self.size, len(self.content))
        region = read(self.at + start + shift, end - start)
        for piece in range(first, last):
            begin = piece * self.size
            length = min(self.size, len(self.content) - begin)
            part = region[begin - start : begin - start + length]
            if len(part) == length and piece_digest(part) == self.digest(piece):
                self.content[begin : begin + length] = part
                self.missing.discard(piece)


def find_anchor(read: Read, anchor: bytes, around: Iterable[int]) -> list[int]:
    """Where in the old file `anchor` is, not further than REACH from one of the offsets; a few places."""
    windows: list[tuple[int, int]] = []
    for low, high in sorted((max(place - REACH, 0), place + REACH) for place in around):
        if windows and low <= windows[-1][1]:
            windows[-1] = windows[-1][0], max(high, windows[-1][1])
        else:
            windows.append((low, high))
    hits: list[int] = []
    for low, high in windows:
        for start in range(low, high, _SEARCH_STEP):
            # Steps overlap, so that none cuts the anchor.
            part = bytes(read(start, min(_SEARCH_STEP, high - start) + len(anchor) - 1))
            at = part.find(anchor)
            while at >= 0:
                hits.append(start + at)
                if len(hits) == MAX_HITS:
                    return hits
                at = part.find(anchor, at + 1)
            if len(part) < len(anchor):
                break
    return hits


def worth_refining(length: int, old_size: int) -> bool:
    """Whether a block of `length` bytes may be had from an old file for less than itself."""
    return length >= WORTH_REFINING and old_size >= MIN_PIECE
