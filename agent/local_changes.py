"""Which targets may have changed since, by the kernel's word: a hint to look, from which nothing follows.

The directories of each target are watched, as far as the host lets the agent watch that many. What happens on
a network file system's other hosts, or through a mapping, is told by nobody: a look at intervals finds it.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from agent.errors import TrueupError
from agent.failures import line_of
from agent.folders import Folders
from agent.inotify import IGNORED, OVERFLOW, Inotify, Notice
from agent.manifest import load, state_of
from agent.rules import AgentRules
from agent.target import check_target, open_target
from agent.versions import load_releases, version_manifest

MOST: Final = 4096
"""Directories that are watched in all. A watch takes the kernel a KiB, and 8,192 are all that a user of a
small host may have."""

_log = logging.getLogger("trueup.agent")


@dataclass(slots=True)
class _Watched:
    """Of one record: what it was when its directories were watched, and their watches."""

    state: bytes
    watches: frozenset[int]


class LocalChanges:
    """Of the targets that records in the state directory name. Raises OSError where none can be watched."""

    def __init__(self, rules: AgentRules, state_dir: Path, *, most: int = MOST) -> None:
        self._rules = rules
        self._state_dir = state_dir
        self._most = most
        self._inotify = Inotify()
        self._records: dict[Path, _Watched] = {}
        self._told = False
        """Whether the log says that some are not watched."""

    def close(self) -> None:
        self._inotify.close()

    async def refresh(self, records: Iterable[Path]) -> set[Path]:
        """Watches what these records name now, and nothing else; those for which that is new, where something
        may have happened before."""
        return await trio.to_thread.run_sync(self._refresh, list(records))

    async def wait(self) -> set[Path]:
        """Waits for notices; the records whose targets may have changed. None where only records did."""
        return concerned(
            await self._inotify.wait(), {record: each.watches for record, each in self._records.items()}
        )

    def _refresh(self, records: list[Path]) -> set[Path]:
        self._watch_records()
        new: set[Path] = set()
        for gone in self._records.keys() - set(records):
            self._forget(self._records.pop(gone).watches)
        for record in records:
            before, state = self._records.get(record), state_of(record)
            if before is not None and before.state == state:
                continue
            old = before.watches if before is not None else frozenset()
            try:
                now = self._watch(record, self._most - self._count(but=record))
            except (TrueupError, OSError) as error:
                self._say(f"a target is looked at only at intervals: {line_of(error)}")
                now, state = frozenset(), b""  # so that it is tried again
            self._records[record] = _Watched(state, now)
            self._forget(old - now)
            if now:
                new.add(record)
        return new

    def _watch_records(self) -> None:
        """Their own directory, as a task saves another record."""
        with suppress(OSError):  # there is none before the first task
            folder = os.open(self._state_dir / "targets", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._inotify.add(folder)
            finally:
                os.close(folder)

    def _count(self, *, but: Path) -> int:
        return sum(len(each.watches) for record, each in self._records.items() if record != but)

    def _forget(self, watches: Iterable[int]) -> None:
        others = {watch for each in self._records.values() for watch in each.watches}
        for watch in set(watches) - others:
            self._inotify.remove(watch)

    def _watch(self, record: Path, room: int) -> frozenset[int]:
        watches: set[int] = set()
        try:
            self._add(record, room, watches)
        except BaseException:
            self._forget(watches)
            raise
        return frozenset(watches)

    def _add(self, record: Path, room: int, watches: set[int]) -> None:
        for path, folders in places_of(record, self._state_dir):
            check_target(path, self._rules.roots)
            if len(watches) + len(folders) > room:
                self._say(f"{path!r} is looked at only at intervals: it has {len(folders)} directories")
                continue
            target = open_target(path, self._rules.roots, create=False)
            if target is None:
                continue
            try:
                with Folders(target.fd) as held:
                    watches.update(self._inotify.add(held.fd(folder)) for folder in folders)
            finally:
                target.close()

    def _say(self, message: str) -> None:
        if not self._told:
            self._told = True
            _log.info("%s", message)


def concerned(found: Iterable[Notice], watched: Mapping[Path, frozenset[int]]) -> set[Path]:
    """The records that notices concern: all of them where some were lost. Pure."""
    found = list(found)
    if any(notice.mask & OVERFLOW for notice in found):
        return set(watched)
    told = {notice.watch for notice in found if notice.mask != IGNORED}
    return {record for record, watches in watched.items() if not told.isdisjoint(watches)}


def places_of(record: Path, state_dir: Path) -> list[tuple[str, list[str]]]:
    """What to watch of a target of any strategy: absolute paths, and directories below each; blocks."""
    if record.suffix != ".releases":
        return _of_manifest(record)
    releases = load_releases(record)
    if releases is None:
        return []
    link = releases.target, [""]
    if not releases.current:
        return [link]
    return [link, *_of_manifest(version_manifest(state_dir, releases.target, releases.current))]


def _of_manifest(path: Path) -> list[tuple[str, list[str]]]:
    manifest = load(path)
    if manifest is None:
        return []
    folders = [each.entry.path for each in manifest.placed if each.entry.kind == "directory"]
    return [(manifest.target, ["", *folders])]
