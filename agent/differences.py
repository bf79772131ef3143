"""What the index of a task and the record of its target differ in, where all else is the same. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Unpack

from agent.index import find_collision, same_content
from agent.index_check import Bounds, IndexCheck, another_tree
from agent.ledger import Ledger
from agent.manifest import Placed
from agent.wire.messages import Entry, KnownRuns

NamesIn = Callable[[str], Iterable[str] | None]
"""The names of all that lies in a directory of the target, by its path; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Differences:
    """`entries` are new, or say something else than is recorded; `recorded` has what is so far at their
    paths, and at those of what `goes`. `whole` is the index as it would be recorded."""

    entries: Mapping[str, Entry]
    recorded: Mapping[str, Placed]
    goes: frozenset[str]
    whole: Ledger


def differences(ledger: Ledger, kept: Collection[int], entries: Iterable[Entry]) -> Differences:
    """Of an index that has the runs `kept` of the ledger, and these entries."""
    numbers = (number for number in range(len(ledger.runs)) if number not in kept)
    left = {placed.entry.path: placed for number in numbers for placed in ledger.listed_in(number)}
    differing: dict[str, Entry] = {}
    recorded: dict[str, Placed] = {}
    for entry in entries:
        placed = left.pop(entry.path, None)
        if placed is not None:
            if says_the_same(placed.entry, entry, modes=ledger.modes, times=ledger.times):
                continue
            recorded[entry.path] = placed
        differing[entry.path] = entry
    changes: dict[str, Placed | None] = {path: Placed(entry) for path, entry in differing.items()}
    changes.update(dict.fromkeys(left))
    return Differences(differing, recorded | left, frozenset(left), ledger.spliced(changes))


def says_the_same(one: Entry, other: Entry, *, modes: bool, times: bool) -> bool:
    """Whether two entries do, as far as these count."""
    return (
        same_content(one, other)
        and (not times or one.mtime_ns == other.mtime_ns)
        and (not modes or one.mode == other.mode)
    )


@dataclass(frozen=True, slots=True)
class KnownLedger:
    """What an agent has of an index: a ledger of what is recorded. Takes the place of `agent.runs.Known`."""

    ledger: Ledger
    names_in: NamesIn

    @property
    def told(self) -> KnownRuns:
        return self.ledger.told()

    def begin(self, same: bytes, **bounds: Unpack[Bounds]) -> "DifferenceCheck":
        """A check of an index that has the runs that the bits of `same` name."""
        return DifferenceCheck(self.ledger, self.ledger.named_by(same), self.names_in, **bounds)


class DifferenceCheck(IndexCheck):
    """As `IndexCheck`, of an index of which the runs `kept` of a ledger are not sent: of these, only what the
    others have to do with is looked at. `names_in` knows of all that the ledger lists."""

    def __init__(
        self, ledger: Ledger, kept: frozenset[int], names_in: NamesIn, **bounds: Unpack[Bounds]
    ) -> None:
        super().__init__(**bounds)
        self._ledger = ledger
        self._kept = kept
        self._names_in = names_in
        self.found: Differences | None = None
        """What it comes to, once it is finished."""
        if kept:
            runs = [ledger.runs[number] for number in kept]
            total, text = sum(run.total for run in runs), sum(run.text for run in runs)
            self._refer(sum(run.count for run in runs), total, text, max(run.largest for run in runs))

    def _largest_known(self) -> Entry:
        number = max(self._kept, key=lambda number: self._ledger.runs[number].largest)
        return max(self._ledger.listed_in(number), key=lambda placed: placed.entry.size).entry

    def kind_of(self, path: str) -> str | None:
        kind = super().kind_of(path)
        if kind is None and self._ledger.number_of(path) in self._kept:
            placed = self._ledger.at(path)
            return placed.entry.kind if placed is not None else None
        return kind

    def finish(self, tree: bytes, *, ignore_permissions: bool) -> tuple[Entry, ...]:
        """What was sent of the index, once the whole of it has the digest `tree`."""
        self._check_complete()
        found = differences(self._ledger, self._kept, self.entries)
        for path, placed in found.recorded.items():
            if placed.entry.kind == "directory" and self._ledger.below(path, self._kept):
                self._check_folder(path)
        self._check_above_reserved()
        fresh = [path for path in found.entries if path not in found.recorded]
        if self._may_collide(fresh):
            self._check_collisions(placed.entry.path for placed in found.whole)
        if ignore_permissions is found.whole.modes or found.whole.tree() != tree:
            raise another_tree()
        self.found = found
        return tuple(self.entries)

    def _may_collide(self, fresh: Iterable[str]) -> bool:
        """Whether a path that is not recorded could be one with another, on some hosts: with one of those
        that are not either, or with anything that lies beside it. What is recorded had no collision."""
        beside: dict[str, set[str]] = {}
        for path in fresh:
            above, _, name = path.rpartition("/")
            beside.setdefault(above, set()).add(name)
        for above, names in beside.items():
            there = self._names_in(above)
            if there is None and self._ledger.at(above) is None and above:
                there = ()  # it is as new as they are
            if there is None or find_collision({*names, *there}) is not None:
                return True
        return False
