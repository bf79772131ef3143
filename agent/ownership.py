"""Whose the entries of an index are, by the names of owner and group. Pure; the same code runs on both sides.

Names are kept beside an index and not in it: as runs of entries, in path order, that have the same two. Most
trees have few.

**Digest of owners**: SHA-256 over `trueup-owners-1`, a line feed, and the MessagePack array (shortest forms)
of one row a run, `[entries, owner, group]`, where no run has the names of the one before. With the tree
digest, which says what the entries are, it stands for the owners of all.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from agent.errors import RemoteProtocolError
from agent.wire.owners import IndexOwners

MAX_NAME_BYTES = 255
MAX_PAIRS = 65_536
"""Different pairs of owner and group in one tree."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters of names in one tree."""

BATCH_RUNS = 32_768
BATCH_TEXT = 256 * 1024

Names = tuple[str, str]
"""Owner and group; an empty one is not known, and nobody's business."""

NameRun = tuple[int, str, str]
"""So many entries, their owner and their group."""

NOBODY: Final[Mapping[str, Names]] = MappingProxyType({})
"""The names of a tree whose owners do not count."""

_LABEL = b"trueup-owners-1\n"
_encode = msgspec.msgpack.Encoder().encode


def usable(name: str) -> bool:
    """Whether this can be the name of a user or group. Never one that could be taken for a number."""
    if not name or name.isdecimal() or not name.isprintable():
        return False
    if any(mark in name for mark in ":/,\n") or name[0] in "-+~ " or name[-1] == " ":
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def gather(paths: Iterable[str], names: Mapping[str, Names]) -> tuple[NameRun, ...]:
    """The runs of entries with these paths; one of which nothing is said is nobody's."""
    runs: list[NameRun] = []
    count = 0
    last: Names = ("", "")
    for path in paths:
        pair = names.get(path, ("", ""))
        if pair != last and count:
            runs.append((count, *last))
            count = 0
        last = pair
        count += 1
    if count:
        runs.append((count, *last))
    return tuple(runs)


def spread(paths: Iterable[str], runs: Iterable[NameRun]) -> dict[str, Names]:
    """The names of each path that has one; the opposite of `gather`."""
    return {path: pair for path, pair in zip(paths, _each(runs), strict=False) if pair != ("", "")}


def _each(runs: Iterable[NameRun]) -> Iterator[Names]:
    for count, owner, group in runs:
        pair = (owner, group)
        for _ in range(count):
            yield pair


def owners_digest(runs: Sequence[NameRun]) -> bytes:
    return hashlib.sha256(_LABEL + _encode(runs)).digest()


def owner_batches(task: str, runs: Sequence[NameRun]) -> Iterator[IndexOwners]:
    """What tells of these runs, each message well within a control frame."""
    numbers: dict[Names, int] = {}
    fresh: list[Names] = []
    told: list[tuple[int, int]] = []
    text = 0
    for count, owner, group in runs:
        pair = (owner, group)
        if pair not in numbers:
            numbers[pair] = len(numbers)
            fresh.append(pair)
            text += 4 * (len(owner) + len(group)) + 16
        told.append((count, numbers[pair]))
        if len(told) >= BATCH_RUNS or text >= BATCH_TEXT:
            yield IndexOwners(task=task, names=tuple(fresh), runs=tuple(told))
            fresh, told, text = [], [], 0
    if told:
        yield IndexOwners(task=task, names=tuple(fresh), runs=tuple(told))


class OwnersCheck:
    """Takes what is told of an index of so many `entries`, and refuses what no primary tells.

    Raises RemoteProtocolError.
    """

    def __init__(self, entries: int) -> None:
        self._left = entries
        self._text = 0
        self._names: list[Names] = []
        self._runs: list[NameRun] = []

    def add(self, batch: IndexOwners) -> None:
        if len(self._names) + len(batch.names) > MAX_PAIRS:
            raise RemoteProtocolError(f"the index has more than {MAX_PAIRS} pairs of owner and group")
        for pair in batch.names:
            for name in pair:
                if name and not usable(name):
                    raise RemoteProtocolError(f"{name[:64]!r} cannot be the name of a user or group")
                self._text += len(name)
        if self._text > MAX_TEXT:
            raise RemoteProtocolError("the names of the owners of the index are too long")
        self._names += batch.names
        for count, number in batch.runs:
            if not 0 < count <= self._left or not 0 <= number < len(self._names):
                raise RemoteProtocolError("the owners of the index are not those of its entries")
            self._left -= count
            self._runs.append((count, *self._names[number]))

    def finish(self, digest: bytes) -> tuple[NameRun, ...]:
        """The runs, once they are complete and have that digest."""
        if self._left or owners_digest(self._runs) != digest:
            raise RemoteProtocolError("the owners of the index are not those that the task names")
        return tuple(self._runs)
