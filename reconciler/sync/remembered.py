"""What earlier scans of a directory have found, so that only what changed is read again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.scan import Found, hash_files, settled
from reconciler.sync.serving import TreeSource


@dataclass(frozen=True, slots=True)
class _File:
    found: Found
    blocks: bytes


class Remembered:
    """Of one directory, for all scans of it. Implements `serving.Remembered`, by way of `of`.

    A file counts as unchanged while device, inode, size and both times of it are. One that changed right
    before it was read is read once more, as another change would not show. `now` gives nanoseconds since the
    epoch.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.files: dict[str, _File] = {}
        self._scans: dict[object, ScanMemory] = {}

    def of(self, rules: object) -> "ScanMemory":
        """For scans with certain rules; their times count from this call on."""
        scan = self._scans.setdefault(rules, ScanMemory(self))
        scan.began_ns = self.now()
        return scan

    def forget(self) -> None:
        """All but what the newest scans have found, so that it does not grow."""
        there = {path for scan in self._scans.values() for path in scan.found}
        self.files = {path: file for path, file in self.files.items() if path in there}


class ScanMemory:
    def __init__(self, directory: Remembered) -> None:
        self._directory = directory
        self.began_ns = 0
        self.found: Mapping[str, Found] = {}
        """Of the newest scan."""
        self._source: TreeSource | None = None

    def whole(self, found: Mapping[str, Found]) -> TreeSource | None:
        """The source of the last scan, if this one has found exactly the same."""
        same = found == self.found
        self.found = found
        if not same:
            self._source = None
        return self._source

    async def hash(self, root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        known = self._directory.files
        contents: dict[str, bytes | None] = {}
        unknown: list[tuple[str, Found]] = []
        for path, found in files:
            file = known.get(path)
            if file is not None and file.found.same_as(found):
                contents[path] = file.blocks
            else:
                unknown.append((path, found))
        for path, blocks in (await hash_files(root_fd, unknown)).items():
            contents[path] = blocks
            known.pop(path, None)
        for path, found in unknown:
            blocks = contents[path]
            if blocks is not None and settled(found, self.began_ns):
                known[path] = _File(found, blocks)
        return contents

    def keep(self, source: TreeSource) -> None:
        """Remember the outcome of the scan, unless a file may have changed since without a trace."""
        known = self._directory.files
        self._source = source if all(path in known for path in source.found) else None
