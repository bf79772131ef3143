"""Takes an index that somebody else sends, and refuses what no well-behaved primary would send. Pure."""

from collections.abc import Collection, Iterable, Sequence
from typing import NotRequired, TypedDict, Unpack

from agent.blocks import block_count, block_size_for
from agent.errors import PathRefused, RemoteProtocolError
from agent.index import (
    MAX_FILE_SIZE,
    MAX_PATH_BYTES,
    MAX_TIME,
    PERMISSIONS,
    ancestors,
    check_path,
    find_collision,
    names_collide,
    parent_of,
    path_of,
    tree_digest,
)
from agent.wire.messages import DIGEST_SIZE, Entry

_TEXT_FREE = 1024 * 1024
_TEXT_PER_ENTRY = 256
"""Bytes of paths and links that an index may hold in all: a MiB, and so many for each entry. Without a
bound two million entries of the longest kind would take 16 GiB of memory."""


class Bounds(TypedDict):
    """What is announced of an index, what the host allows, and the paths that the tree must leave alone: of
    rendered files, and of the agent's own."""

    entries: int
    total_bytes: int
    max_entries: int
    max_file_size: int
    max_total_size: int
    reserved: NotRequired[Collection[str]]


class IndexCheck:
    """Takes an index batch by batch and refuses all that a well-behaved primary never sends.

    `known` are entries that are not sent, as the agent has them from an index that it took earlier. Raises
    PathRefused for a path, RemoteProtocolError for anything else.
    """

    def __init__(self, *, known: Sequence[Entry] = (), **bounds: Unpack[Bounds]) -> None:
        entries, max_entries = bounds["entries"], bounds["max_entries"]
        total_bytes, max_total_size = bounds["total_bytes"], bounds["max_total_size"]
        reserved = bounds.get("reserved", ())
        if not 0 <= entries <= max_entries:
            raise RemoteProtocolError(
                f"the tree has {entries} entries and this host allows {max_entries}",
                hint="raise max_entries in agent.toml or ignore more",
            )
        if not 0 <= total_bytes <= max_total_size:
            raise RemoteProtocolError(
                f"the tree has {total_bytes} bytes and this host allows {max_total_size}",
                hint="raise max_total_size in agent.toml or ignore more",
            )
        self._announced = entries
        self._announced_bytes = total_bytes
        self._max_file_size = min(bounds["max_file_size"], MAX_FILE_SIZE)
        self._reserved = frozenset(reserved)
        self._above_reserved = frozenset(above for path in reserved for above in ancestors(path))
        self._kinds: dict[str, str] = {}
        self._bytes = 0
        self._text_left = _TEXT_FREE + _TEXT_PER_ENTRY * entries
        self._last = ""
        self._known = known
        self.entries: list[Entry] = []
        if known:
            self._take(known)

    def _take(self, known: Sequence[Entry]) -> None:
        self._kinds = {entry.path: entry.kind for entry in known}
        if len(self._kinds) != len(known):
            raise RemoteProtocolError("the index refers to an entry twice")
        total = sum(entry.size for entry in known)
        text = sum(len(entry.path) + len(entry.link) for entry in known)
        self._refer(len(known), total, text, max(map(_size_of, known)))

    def _refer(self, count: int, total: int, text: int, largest: int) -> None:
        """Takes `count` entries that are not sent, of `total` bytes, up to `largest`, and so much text.

        Each was checked when it came; what depends on the host's rules or on other entries is not.
        """
        self._announced -= count
        if self._announced < 0:
            raise RemoteProtocolError("the index refers to more entries than it announced")
        self._bytes = total
        if self._bytes > self._announced_bytes or largest > self._max_file_size:
            self._check_file(self._largest_known())
            raise RemoteProtocolError("the index refers to more bytes than it announced")
        self._text_left -= text
        for path in self._reserved:
            if self.kind_of(path):
                raise PathRefused(f"the index names {path!r}, which is a rendered file's or the agent's own")

    def _largest_known(self) -> Entry:
        return max(self._known, key=_size_of)

    def kind_of(self, path: str) -> str | None:
        """What the index has at a path, as far as it is known."""
        return self._kinds.get(path)

    def add(self, batch: Iterable[Entry]) -> None:
        for entry in batch:
            self._check(entry)
            self._kinds[entry.path] = entry.kind
            self._last = entry.path
            self.entries.append(entry)

    def _check(self, entry: Entry) -> None:
        path = entry.path
        check_path(path)
        if len(self.entries) >= self._announced:
            raise RemoteProtocolError("the index holds more entries than it announced")
        if path <= self._last or self.kind_of(path):
            raise RemoteProtocolError(f"the index is not in order at {path!r}, or names it twice")
        self._text_left -= len(path) + len(entry.link)
        if self._text_left < 0:
            raise RemoteProtocolError("the paths and links of the index are too long")
        above = parent_of(path)
        if above and self.kind_of(above) != "directory":
            raise PathRefused(f"the index puts {path!r} below something that is no directory of it")
        if path in self._reserved or (path in self._above_reserved and entry.kind != "directory"):
            raise PathRefused(f"the index names {path!r}, which is a rendered file's or the agent's own")
        if not 0 <= entry.mode <= PERMISSIONS:
            raise RemoteProtocolError(f"the mode of {path!r} has more than permission bits")
        if not 0 <= entry.mtime_ns <= MAX_TIME:
            raise RemoteProtocolError(f"{path!r} has an impossible time")
        if entry.kind == "file":
            self._check_file(entry)
        elif entry.size or entry.blocks or entry.block_size:
            raise RemoteProtocolError(f"{path!r} is no file and has a size")
        if (entry.kind == "symlink") != bool(entry.link) or not _link_fits(entry.link):
            raise RemoteProtocolError(f"the link of {path!r} is missing, misplaced or unusable")

    def _check_file(self, entry: Entry) -> None:
        if not 0 <= entry.size <= self._max_file_size:
            raise RemoteProtocolError(
                f"{entry.path!r} has {entry.size} bytes and this host allows {self._max_file_size}",
                hint="raise max_file_size in agent.toml or ignore it",
            )
        if entry.block_size != block_size_for(entry.size):
            raise RemoteProtocolError(f"{entry.path!r} is cut into blocks of the wrong size")
        if len(entry.blocks) != block_count(entry.size) * DIGEST_SIZE:
            raise RemoteProtocolError(f"{entry.path!r} has digests that do not fit its size")
        self._bytes += entry.size
        if self._bytes > self._announced_bytes:
            raise RemoteProtocolError("the index holds more bytes than it announced")

    def finish(self, tree: bytes, *, ignore_permissions: bool) -> tuple[Entry, ...]:
        """The whole index, once it is complete and has the digest `tree`."""
        self._check_complete()
        if self._known:
            for above in {parent_of(entry.path) for entry in self._known} - {""}:
                self._check_folder(above)
            self._check_above_reserved()
            self.entries = sorted([*self._known, *self.entries], key=path_of)
        self._check_collisions(self._kinds)
        if tree_digest(self.entries, ignore_permissions=ignore_permissions) != tree:
            raise another_tree()
        return tuple(self.entries)

    def _check_complete(self) -> None:
        if len(self.entries) != self._announced or self._bytes != self._announced_bytes:
            raise RemoteProtocolError("the index holds less than it announced")

    def _check_folder(self, above: str) -> None:
        """Of entries that are not sent."""
        if self.kind_of(above) != "directory":
            raise PathRefused(f"the index has entries below {above!r}, which is no directory of it")

    def _check_above_reserved(self) -> None:
        for path in self._above_reserved:
            if self.kind_of(path) not in (None, "directory"):
                raise PathRefused(f"the index names {path!r}, which is above a rendered file")

    @staticmethod
    def _check_collisions(paths: Iterable[str]) -> None:
        collision = find_collision(paths)
        if collision:
            raise names_collide(*collision)


def another_tree() -> RemoteProtocolError:
    return RemoteProtocolError("the index is not of the tree that the task names")


def _size_of(entry: Entry) -> int:
    return entry.size


def _link_fits(link: str) -> bool:
    if "\0" in link:
        return False
    try:
        return len(link.encode()) <= MAX_PATH_BYTES - 1
    except UnicodeEncodeError:
        return False
