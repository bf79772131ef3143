"""What earlier scans of a directory have found, so that only what changed is looked at closely and read."""

import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import trio

from agent.glance import Rows, changed_since, rows_of
from agent.index import path_of
from agent.ownership import owners_digest
from agent.scan import Found, Scan, found_from, hash_files, settled
from agent.wire.messages import Entry
from reconciler.sync.frames import Frames
from reconciler.sync.hashed import Hashed, told_apart
from reconciler.sync.names import LocalNames, owned_by
from reconciler.sync.selection import check_sendable, entry_of, sendable_time, unsent
from reconciler.sync.serving import TreeSource


class Remembered:
    """Of one directory, for all scans of it. Implements `serving.Remembered`, by way of `of`.

    A file counts as unchanged while device, inode, size and both times of it are. One that changed right
    before it was read is read once more, as another change would not show. `now` gives nanoseconds since the
    epoch; `names` are what other directories know of users and groups as well.
    """

    def __init__(self, now: Callable[[], int], names: LocalNames | None = None) -> None:
        self.now = now
        self.names = LocalNames() if names is None else names
        self.files: dict[str, Hashed] = {}
        self.may_hold_more = False
        """Whether files may be known that no scan has found lately."""
        self._scans: dict[object, ScanMemory] = {}
        self._asked: set[object] = set()
        """The rules that were asked for since `forget`."""

    def of(self, rules: object) -> "ScanMemory":
        """For scans with certain rules; their times count from this call on."""
        self._asked.add(rules)
        scan = self._scans.setdefault(rules, ScanMemory(self))
        scan.began_ns = self.now()
        return scan

    def forget(self) -> None:
        """At the end of a look, all but what its scans have found, so that it does not grow."""
        asked, self._asked = self._asked, set()
        for rules in self._scans.keys() - asked:
            del self._scans[rules]
            self.may_hold_more = True
        if not self.may_hold_more:
            return
        there = {path for scan in self._scans.values() for path in scan.found}
        self.files = {path: file for path, file in self.files.items() if path in there}
        self.may_hold_more = False


class ScanMemory:
    def __init__(self, directory: Remembered) -> None:
        self._directory = directory
        self.names = directory.names
        self.began_ns = 0
        self.found: Mapping[str, Found] = {}
        """Of the newest scan."""
        self._rows: Rows | None = None
        self._besides: Iterable[str] = ()
        """What is in the same directories and not looked at."""
        self._own: Collection[str] = ()
        """Of that, what has a name of trueup's own."""
        self._source: TreeSource | None = None
        self._name_changes = 0
        """Of `names`, by the newest look."""

    async def refreshed(
        self, root_fd: int, *, ignore_permissions: bool, owners: bool = False
    ) -> TreeSource | None:
        """The source of now, as long as `lstat` shows that every name still stands for a thing of its kind.

        Only files that changed are read. Any other change is for a scan, and so is one right before this
        began, as a later one might not show.
        """
        source, rows = self._source, self._rows
        is_renamed = owners and await self._look_up_names_again()
        if source is None or rows is None:
            return None
        seen = await trio.to_thread.run_sync(changed_since, root_fd, rows, self._besides)
        if seen is None:
            return None
        rows, changed = seen
        if not changed and not is_renamed:
            return self.whole(root_fd)
        if not all(settled(found, self.began_ns) for found in changed.values()):
            return None
        ours = {path: found for path, found in changed.items() if path in self.found}
        check_sendable(ours, self.found)
        files = [(path, there) for path, there in ours.items() if there.kind == "file"]
        contents = await self.hash(root_fd, files)
        if None in contents.values():
            return None

        now = {**self.found, **ours}
        is_given = any(_owner_of(there) != _owner_of(self.found[path]) for path, there in ours.items())

        def renew() -> TreeSource:
            entries = [entry_of(path, found, contents.get(path)) for path, found in ours.items()]
            renewed = _renewed(source, entries, ours, ignore_permissions=ignore_permissions)
            if not owners or not (is_renamed or is_given):
                return renewed
            owned, nameless = owned_by(now, self.names)
            warnings = (*unsent(now, self._own), *nameless)
            return replace(renewed, owned=owned, owners=owners_digest(owned), warnings=warnings)

        self._source = await trio.to_thread.run_sync(renew)
        self._rows, self.found = rows, now
        return self.whole(root_fd)

    async def _look_up_names_again(self) -> bool:
        """Whether some changed since the last look; then the source of then is none any more."""
        changes = await trio.to_thread.run_sync(self.names.look_again)
        if changes == self._name_changes:
            return False
        self._name_changes = changes
        self._source = None
        return True

    def scanned(self, scan: Scan, found: Mapping[str, Found], own: Collection[str]) -> None:
        if found != self.found or own != self._own:
            self._source = None
            self._directory.may_hold_more = True
        self.found = found
        self._besides, self._own = scan.ignored, own
        folders = (path for path, there in scan.found.items() if there.kind == "directory")
        besides = {path: path in scan.ignored_folders for path in scan.ignored}
        self._rows = rows_of(scan.found, folders, besides, self.began_ns, owned=True)

    def whole(self, root_fd: int) -> TreeSource | None:
        if self._source is not None:
            mtime_ns = sendable_time(found_from(os.fstat(root_fd)))  # what is not sent alters it too
            if self._source.mtime_ns != mtime_ns:
                self._source = replace(self._source, mtime_ns=mtime_ns)
        return self._source

    async def hash(self, root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        known = self._directory.files
        contents, unknown = told_apart(files, known)
        for path, blocks in (await _hash(root_fd, unknown)).items():
            contents[path] = blocks
            known.pop(path, None)
        for path, found in unknown:
            blocks = contents[path]
            if blocks is not None and settled(found, self.began_ns):
                known[path] = Hashed(found, blocks)
        return contents

    def keep(self, source: TreeSource) -> None:
        """Remember the outcome of the scan, unless a file may have changed since without a trace."""
        if source is not self._source:
            known = self._directory.files.keys()
            self._source = source if known >= source.found.keys() else None


async def _hash(root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
    """As `hash_files`, and takes a file that grows as long as it was. It is read twice then: only what is the
    same both times is what the file once held, and not half of another that is being written over it."""
    grown: set[str] = set()
    contents = await hash_files(root_fd, files, grown=grown)
    if not grown:
        return contents
    again = await hash_files(root_fd, [(path, found) for path, found in files if path in grown], grown=grown)
    return {path: None if again.get(path, blocks) != blocks else blocks for path, blocks in contents.items()}


def _owner_of(found: Found) -> tuple[int, int]:
    return found.uid, found.gid


def _renewed(
    source: TreeSource,
    entries: Iterable[Entry],
    found: Mapping[str, Found],
    *,
    ignore_permissions: bool,
) -> TreeSource:
    """`source` with other `entries` in the places of those that have their names. Pure."""
    renewed = list(source.entries)
    size = source.bytes
    places: list[int] = []
    for entry in entries:
        place = bisect_left(renewed, entry.path, key=path_of)
        size += entry.size - renewed[place].size
        renewed[place] = entry
        places.append(place)
    now = tuple(renewed)
    runs = source.runs.with_others(source.entries, now, places)
    return replace(
        source,
        entries=now,
        tree=runs.tree(now, ignore_permissions=ignore_permissions),
        bytes=size,
        found={**source.found, **{path: there for path, there in found.items() if there.kind == "file"}},
        runs=runs,
        frames=Frames(),
    )
