"""The releases that a target keeps, as places where blocks of another one may be found.

A tree that comes back, or a file of it, is then put together from what is there. Nothing that a version's
manifest says is believed: blocks are verified before use, like everything taken from this host.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import TrueupError
from agent.manifest import load, manifest_path
from agent.reuse import Content, Shelf
from agent.target import open_target
from agent.versions import Releases, version_path

MAX_SHELVES = 16
"""Versions that are looked through, the ones that were current last; each costs a descriptor, and its
manifest is read where something is wanted that no other place has."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a task has to know that works in one version of a target and not in the target itself.

    `shelves` are directories besides it, open until the task is done, from which blocks may be taken. Where
    the task foresees: whether the commands of `after` are done, which the versions have in common; and
    whether it would not change this one but begin another with what is as it was placed (`anew`).
    """

    shelves: Sequence[Shelf] = ()
    after_done: bool | None = None
    anew: bool = False


WHOLE: Final = Version()
"""A target without versions."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a version's manifest lists of files, read each time it is gone through and never held as a whole
    longer than that: `find_sources` keeps what is wanted alone, and versions may be many and large."""

    path: Path

    def __iter__(self) -> Iterator[Content]:
        try:
            manifest = load(self.path)
        except (TrueupError, OSError):
            return  # blocks then come from the primary
        for item in manifest.placed if manifest is not None else ():
            if item.entry.kind == "file" and item.entry.size and not item.kept:
                yield item.entry.path, item.entry.size, item.entry.blocks


def shelves_of(
    record: Releases, inner: Path, roots: tuple[str, ...], *, but: str, close_with: ExitStack
) -> list[Shelf]:
    """The versions besides `but`, open until `close_with` is closed; `inner` is where their manifests are.
    Blocks. A version that cannot be opened is left out."""
    shelves: list[Shelf] = []
    for version in reversed(record.kept):
        if version.name == but or len(shelves) == MAX_SHELVES:
            continue
        path = version_path(record.target, version.name)
        try:
            found = open_target(path, roots, create=False)
        except (TrueupError, OSError):
            continue
        if found is not None:
            close_with.callback(found.close)
            shelves.append(Shelf(found.fd, Contents(manifest_path(inner, path))))
    return shelves
