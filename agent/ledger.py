"""What a manifest lists, by runs of its entries, each as it is encoded: decoded only where somebody asks.

The runs are those of `agent.runs`, so that what an agent has of an index is told, found, changed and saved
without touching any other entry: of 50,000 of which one changed some dozens are decoded, and the bytes of all
others are copied as they are. Pure.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate, chain, pairwise
from pathlib import Path

import msgspec

from agent.errors import RemoteProtocolError
from agent.index import array_header, digest_of_rows, tree_rows
from agent.manifest import Listing, Placed, unreadable
from agent.runs import MAX_RUNS, bitmap_size, length_for, runs_of
from agent.wire.messages import Entry, KnownRuns

_FEW = 16
"""Digests of blocks up to which the encoded entries are searched; for more all are decoded."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Placed]).decode


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of some entries that follow each other, without decoding them."""

    first: str
    """The path of the first one."""
    count: int
    files: int
    total: int
    """Bytes of their files."""
    text: int
    """Length of their paths and links."""
    largest: int
    """Bytes of the largest file."""
    digest: bytes
    """As it is told of; see `agent.runs`."""
    rows: bytes
    """What the tree digest covers of them; see `agent.index.tree_rows`."""
    size: int
    """Bytes of the encoded entries."""


class Ledger(Listing):
    """Entries in path order. Whether `modes` and `times` count is as in `agent.runs.Known`.

    `listed` has the encoded entries of each of `runs`. Iterating decodes all. `late` are directories and
    symlinks that have another time on the disk than is recorded; no look minds that. `record` is the file
    that all is from.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        listed: Sequence[bytes],
        *,
        length: int,
        modes: bool,
        times: bool,
        late: frozenset[str] = frozenset(),
        record: Path | None = None,
    ) -> None:
        self.runs = runs
        self.length = length
        self.modes = modes
        self.times = times
        self.late = late
        self._record = record
        self._listed = listed
        self._decoded: dict[int, dict[str, Placed]] = {}

    @classmethod
    def of(
        cls, placed: Iterable[Placed], *, modes: bool, times: bool, late: frozenset[str] = frozenset()
    ) -> "Ledger":
        in_order = sorted(placed, key=lambda each: each.entry.path)
        length = length_for(len(in_order))
        parts = list(_cut(in_order, length=length, modes=modes, times=times))
        runs, listed = [run for run, _ in parts], [encoded for _, encoded in parts]
        return cls(runs, listed, length=length, modes=modes, times=times, late=late)

    # --- as a listing --------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Placed]:
        for number in range(len(self.runs)):
            yield from self.listed_in(number)

    def __contains__(self, placed: object) -> bool:
        return isinstance(placed, Placed) and self.at(placed.entry.path) == placed

    def encoded(self) -> msgspec.Raw:
        return msgspec.Raw(b"".join((array_header(len(self)), *self._listed)))

    def at(self, path: str) -> Placed | None:
        number = self.number_of(path)
        return self._by_path(number).get(path) if number >= 0 else None

    def holding(self, blocks: Collection[bytes]) -> Iterable[Placed]:
        if len(blocks) > _FEW:
            return self
        numbers = (
            number
            for number, encoded in enumerate(self._listed)
            if any(digest in encoded for digest in blocks)
        )
        return chain.from_iterable(map(self.listed_in, numbers))

    # --- by runs -------------------------------------------------------------------------------

    @property
    def files(self) -> int:
        return sum(run.files for run in self.runs)

    def told(self) -> KnownRuns:
        """What to say of it to somebody who may have the same."""
        digests = b"".join(run.digest for run in self.runs[:MAX_RUNS])
        return KnownRuns(length=self.length, modes=self.modes, digests=digests)

    def named_by(self, same: bytes) -> frozenset[int]:
        """The numbers of those runs that the bits of `same` name."""
        count = min(len(self.runs), MAX_RUNS)
        if len(same) > bitmap_size(count):
            raise RemoteProtocolError("the index refers to runs that nobody told of")
        bits = min(count, 8 * len(same))
        return frozenset(number for number in range(bits) if same[number >> 3] >> (number & 7) & 1)

    def listed_in(self, number: int) -> list[Placed]:
        """What one of the runs has."""
        return self._taken_apart(self.runs[number], self._listed[number])

    def number_of(self, path: str) -> int:
        """The number of the run that has the path, if one has it; -1 before all."""
        return bisect_right(self._firsts, path) - 1

    def ordinal(self, path: str) -> int:
        """The place of an entry that is there among all of them."""
        number = self.number_of(path)
        return self._starts[number] + list(self._by_path(number)).index(path)

    def below(self, folder: str, numbers: Collection[int]) -> bool:
        """Whether one of these runs has something below the directory of that path."""
        start, end = f"{folder}/", f"{folder}0"  # "0" follows "/"
        number = max(0, self.number_of(start))
        while number < len(self.runs) and self.runs[number].first < end:
            if number in numbers and any(path.startswith(start) for path in self._by_path(number)):
                return True
            number += 1
        return False

    def tree(self) -> bytes:
        """The digest of the tree that this is."""
        return digest_of_rows(len(self), (run.rows for run in self.runs))

    def with_late(self, late: frozenset[str]) -> "Ledger":
        return self._like(self.runs, self._listed, late)

    def spliced(self, changes: Mapping[str, Placed | None]) -> "Ledger":
        """The same with these at their paths, None standing for nothing; `late` stays as it is."""
        if not changes:
            return self
        to_change: dict[int, dict[str, Placed | None]] = {}
        for path, placed in changes.items():
            to_change.setdefault(max(0, self.number_of(path)), {})[path] = placed
        done: list[tuple[Run, bytes]] = []
        loose: list[Placed] = []
        cut = partial(_cut, length=self.length, modes=self.modes, times=self.times)
        for number, (run, encoded) in enumerate(zip(self.runs, self._listed, strict=True)):
            if number not in to_change:
                done += cut(loose)
                loose = []
                done.append((run, encoded))
                continue
            entries = _changed(self.listed_in(number), to_change[number])
            first = entries[0].entry.path if entries else run.first
            if first != run.first and not loose and done:
                # Its first entry need not begin a run any more.
                loose = self._taken_apart(*done.pop())
            loose += entries
        if not self.runs:
            loose = _changed([], to_change[0])
        done += cut(loose)
        return self._like([run for run, _ in done], [encoded for _, encoded in done], self.late)

    def _like(self, runs: Sequence[Run], listed: Sequence[bytes], late: frozenset[str]) -> "Ledger":
        return Ledger(
            runs,
            listed,
            length=self.length,
            modes=self.modes,
            times=self.times,
            late=late,
            record=self._record,
        )

    # --- taking it apart -----------------------------------------------------------------------

    @cached_property
    def _firsts(self) -> list[str]:
        return [run.first for run in self.runs]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((run.count for run in self.runs), initial=0))

    def _by_path(self, number: int) -> dict[str, Placed]:
        if number not in self._decoded:
            self._decoded[number] = {placed.entry.path: placed for placed in self.listed_in(number)}
        return self._decoded[number]

    def _taken_apart(self, run: Run, encoded: bytes) -> list[Placed]:
        try:
            return _decode(array_header(run.count) + encoded)
        except msgspec.MsgspecError:
            raise unreadable(self._record or Path()) from None


def _changed(placed: Iterable[Placed], changes: Mapping[str, Placed | None]) -> list[Placed]:
    by_path: dict[str, Placed | None] = {each.entry.path: each for each in placed}
    by_path.update(changes)
    return [each for _, each in sorted(by_path.items()) if each is not None]


def _cut(placed: Sequence[Placed], *, length: int, modes: bool, times: bool) -> Iterator[tuple[Run, bytes]]:
    """The runs of entries in path order, and these as they are encoded."""
    if not placed:
        return
    cut = runs_of([each.entry for each in placed], length, modes=modes, times=times)
    for digest, (start, end) in zip(cut.digests, pairwise(cut.bounds), strict=True):
        part = placed[start:end]
        encoded = _encode(part)[len(array_header(len(part))) :]
        yield _run_of([each.entry for each in part], digest, len(encoded), modes=modes), encoded


def _run_of(entries: Sequence[Entry], digest: bytes, size: int, *, modes: bool) -> Run:
    sizes = [entry.size for entry in entries]
    return Run(
        first=entries[0].path,
        count=len(entries),
        files=sum(1 for entry in entries if entry.kind == "file"),
        total=sum(sizes),
        text=sum(len(entry.path) + len(entry.link) for entry in entries),
        largest=max(sizes),
        digest=digest,
        rows=tree_rows(entries, ignore_permissions=not modes),
        size=size,
    )
