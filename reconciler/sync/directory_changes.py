"""What changed in a directory between two scans of it, in words that stay short. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import is_not
from typing import Literal

from agent.ownership import Names
from agent.wire.messages import Entry

Kind = Literal["added", "changed", "removed"]

MAX_NAMED = 10
"""Paths that are named; of the others there is a count."""

MAX_SHOWN = 120
"""Characters of a path that are shown."""


@dataclass(frozen=True, slots=True)
class DirectoryChange:
    """What changed in the directory of a project, `resource`."""

    resource: str
    directory: str
    kinds: Mapping[str, Kind]
    """By path."""

    def __str__(self) -> str:
        counted = [
            f"{count} {kind}"
            for kind in ("added", "changed", "removed")
            if (count := sum(each == kind for each in self.kinds.values()))
        ]
        named = [f"{kind} {_shown(path)}" for path, kind in sorted(self.kinds.items())[:MAX_NAMED]]
        more = len(self.kinds) - len(named)
        if more:
            named.append(f"and {more} more")
        return f"{self.directory}: {', '.join(counted)}: {'; '.join(named)}"


def changes(before: Sequence[Entry], after: Sequence[Entry], *, modes: bool) -> dict[str, Kind]:
    """By path. Times are no change, and neither are permissions unless `modes` count."""
    # Most of a tree that was renewed are the very entries of the one before, in their places.
    others = list(map(is_not, before, after))
    old, new = (
        {entry.path: _content(entry, modes) for entry in (*compress(each, others), *each[len(others) :])}
        for each in (before, after)
    )
    found: dict[str, Kind] = dict.fromkeys(old.keys() - new.keys(), "removed")
    found |= dict.fromkeys(new.keys() - old.keys(), "added")
    found |= {path: "changed" for path in new.keys() & old.keys() if new[path] != old[path]}
    return found


def changed_owners(before: Mapping[str, Names], after: Mapping[str, Names]) -> dict[str, Kind]:
    """By path; what is not named is nobody's."""
    return {path: "changed" for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def _content(entry: Entry, modes: bool) -> tuple[object, ...]:
    return entry.kind, entry.mode if modes else 0, entry.size, entry.blocks, entry.link


def _shown(path: str) -> str:
    """As in Python's source where a name has what a terminal or a reader could take for something else."""
    text = path if path.isprintable() and ";" not in path else repr(path)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
