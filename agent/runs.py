"""Runs of an index: which of its entries the other side has already, told by digests. Pure; on both sides.

An index in path order is cut before each entry whose path says so, by a hash of the path alone, into runs of
some 16 entries. So both sides cut wherever they agree, in directories of any size and depth; equal subtrees
are equal runs, and one that differs costs its neighbours and no more. The digest of a run covers all that an
index says of its entries. It finds what is equal and proves nothing: the tree digest does that.
"""

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Unpack

import msgspec

from agent.errors import RemoteProtocolError
from agent.index_check import Bounds, IndexCheck
from agent.wire.messages import Entry, KnownRuns

SHORTEST = 16
"""Entries of a run, on average: fewer would cost more digests, more would drag more equal entries along."""

LONGEST = 4096
MAX_RUNS = 32_768
"""Runs that are told of: half a MiB of digests. A larger tree is cut into longer ones."""

RUN_DIGEST = 16
_MIX = 0x9E3779B1

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Runs:
    """`bounds` has the place of each run's first entry, and the number of all entries at its end."""

    entries: Sequence[Entry]
    bounds: list[int]
    digests: list[bytes]


@dataclass(frozen=True, slots=True)
class Known:
    """What an agent has of an index: entries in path order, and how to tell of them."""

    entries: Sequence[Entry]
    modes: bool = True
    times: bool = True
    runs: Runs = field(init=False)
    told: KnownRuns = field(init=False)

    def __post_init__(self) -> None:
        length = length_for(len(self.entries))
        runs = runs_of(self.entries, length, modes=self.modes, times=self.times)
        # Paths may be chosen so that the cut is finer; a bound is a bound.
        digests = b"".join(runs.digests[:MAX_RUNS])
        object.__setattr__(self, "runs", runs)
        object.__setattr__(self, "told", KnownRuns(length=length, modes=self.modes, digests=digests))

    def begin(self, same: bytes, **bounds: Unpack[Bounds]) -> IndexCheck:
        """A check of an index that has the runs that the bits of `same` name."""
        return IndexCheck(known=self.taken(same), **bounds)

    def taken(self, same: bytes) -> list[Entry]:
        """The entries of those runs that the bits of `same` name."""
        bounds = self.runs.bounds
        count = len(self.told.digests) // RUN_DIGEST
        if len(same) > bitmap_size(count):
            raise RemoteProtocolError("the index refers to runs that nobody told of")
        taken: list[Entry] = []
        for number in range(min(count, 8 * len(same))):
            if same[number >> 3] >> (number & 7) & 1:
                taken += self.entries[bounds[number] : bounds[number + 1]]
        return taken


def length_for(entries: int) -> int:
    """How long the runs of so many entries are."""
    length = SHORTEST
    while length < LONGEST and entries > length * MAX_RUNS * 3 // 4:
        length *= 2
    return length


def runs_of(entries: Sequence[Entry], length: int, *, modes: bool = True, times: bool = True) -> Runs:
    """Cuts entries in path order; without `modes`, digests leave permissions out, without `times` those."""
    mask = length - 1
    crc = zlib.crc32
    # A CRC alone is linear: numbered names would be cut finely in some places and hardly in others.
    bounds = [at for at, entry in enumerate(entries) if not (crc(entry.path.encode()) * _MIX >> 16) & mask]
    if entries and (not bounds or bounds[0]):
        bounds.insert(0, 0)
    bounds.append(len(entries))
    digests = [_digest(entries[start:end], modes=modes, times=times) for start, end in pairwise(bounds)]
    return Runs(entries, bounds, digests)


def with_others(
    runs: Runs, entries: Sequence[Entry], places: Iterable[int], *, modes: bool = True, times: bool = True
) -> Runs:
    """As `runs_of` would make them of `entries`, which have the paths of those before, and say something else
    at these places alone."""
    bounds, digests = runs.bounds, list(runs.digests)
    for number in {bisect_right(bounds, place) - 1 for place in places}:
        part = entries[bounds[number] : bounds[number + 1]]
        digests[number] = _digest(part, modes=modes, times=times)
    return Runs(entries, bounds, digests)


def _digest(entries: Sequence[Entry], *, modes: bool, times: bool) -> bytes:
    left_out = ({} if modes else {"mode": 0}) | ({} if times else {"mtime_ns": 0})
    said = [msgspec.structs.replace(entry, **left_out) for entry in entries] if left_out else entries
    return hashlib.blake2b(_encode(said), digest_size=RUN_DIGEST).digest()


def check_known(known: KnownRuns) -> None:
    """Raises RemoteProtocolError for what no agent tells."""
    if known.length & (known.length - 1) or not SHORTEST <= known.length <= LONGEST:
        raise RemoteProtocolError(f"runs of {known.length} entries")
    if len(known.digests) % RUN_DIGEST or len(known.digests) > MAX_RUNS * RUN_DIGEST:
        raise RemoteProtocolError(f"{len(known.digests)} bytes of digests of runs")


def compare_runs(known: KnownRuns, own: Runs) -> tuple[bytes, list[Entry]]:
    """Which of the runs that somebody has are in `own`, as bits, and the entries in none of them."""
    places = {digest: number for number, digest in enumerate(own.digests)}
    count = len(known.digests) // RUN_DIGEST
    same = bytearray(bitmap_size(count))
    had: set[int] = set()
    for number in range(count):
        place = places.get(known.digests[number * RUN_DIGEST : (number + 1) * RUN_DIGEST])
        if place is not None and place not in had:
            had.add(place)
            same[number >> 3] |= 1 << (number & 7)
    rest: list[Entry] = []
    for number in range(len(own.digests)):
        if number not in had:
            rest += own.entries[own.bounds[number] : own.bounds[number + 1]]
    return bytes(same), rest


def bitmap_size(count: int) -> int:
    return -(-count // 8)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.path)
