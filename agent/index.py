"""What an index may hold, and the digest of a tree. Pure; the same code runs on both sides.

**Tree digest**: SHA-256 over `trueup-tree-1`, a line feed, and the MessagePack array (shortest forms) of
one row an entry, ordered by path (code points, which is the order of UTF-8 bytes):
`[path, kind, mode, size, blocks, link]`. `kind` is the first letter of file, directory or symlink;
`mode` is the permission bits, -1 for a symlink or where permissions are ignored; `size` and `blocks`
(the concatenated SHA-256 digests of its blocks, whose size follows from the file's) are a file's,
`link` is a symlink's. Times and owners are not part of it. A name that is not UTF-8, which no index
may hold but a target may, stands as the bytes it has on disk.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from agent.blocks import block_count, block_size_for
from agent.errors import PathRefused, RemoteProtocolError
from agent.wire.messages import DIGEST_SIZE, Entry

STAGING = ".trueup-staging"
"""Directory in a target's root where files are put together; no index may name it."""

BACKUP_MARK = ".trueup-backup-"
"""What the names of backups of local edits contain; they are never compared, sent or deleted."""

PERMISSIONS = 0o777
"""The only mode bits that travel: never setuid, setgid or sticky."""

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
MAX_FILE_SIZE = 64 * 1024**3
"""A larger file's digests would not fit into one message."""

MAX_TIME = 2**62
"""Nanoseconds since the epoch, in the year 2116: what every file system takes."""

_TEXT_FREE = 1024 * 1024
_TEXT_PER_ENTRY = 256
"""Bytes of paths and links that an index may hold in all: a MiB, and so many for each entry. Without a
bound two million entries of the longest kind would take 16 GiB of memory."""

BATCH_BYTES = 512 * 1024
"""An `IndexFile` message holds entries of about this size, half a control frame."""

_TREE_LABEL = b"trueup-tree-1\n"
_encoder = msgspec.msgpack.Encoder()


def reserved_name(name: str) -> bool:
    """Whether one component of a path belongs to trueup itself."""
    return name == STAGING or BACKUP_MARK in name


def check_path(path: str) -> None:
    """Raises PathRefused unless `path` is relative, canonical, encodable and not trueup's own."""
    problem = _path_problem(path)
    if problem:
        raise PathRefused(f"path {path!r} {problem}")


def _path_problem(path: str) -> str | None:
    if not path:
        return "is empty"
    if "\0" in path:
        return "contains a NUL"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8: rename or ignore it"
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return "is not canonical: it has an empty, '.' or '..' component"
        if len(name) * 4 > MAX_NAME_BYTES and len(name.encode()) > MAX_NAME_BYTES:
            return f"has a name of more than {MAX_NAME_BYTES} bytes"
        if reserved_name(name):
            return "uses a name that trueup keeps for itself"
    return None


def parent_of(path: str) -> str:
    """The directory that holds `path`; empty for the root of the tree."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> list[str]:
    """The directories above `path`, outermost first, without the root of the tree."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def file_entry(path: str, *, mode: int, size: int, mtime_ns: int, blocks: bytes) -> Entry:
    return Entry(
        path=path,
        kind="file",
        mode=mode & PERMISSIONS,
        size=size,
        mtime_ns=mtime_ns,
        block_size=block_size_for(size),
        blocks=blocks,
    )


def directory_entry(path: str, *, mode: int, mtime_ns: int) -> Entry:
    return Entry(path=path, kind="directory", mode=mode & PERMISSIONS, mtime_ns=mtime_ns)


def symlink_entry(path: str, *, mtime_ns: int, link: str) -> Entry:
    return Entry(path=path, kind="symlink", mtime_ns=mtime_ns, link=link)


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two entries hold the same, whatever their modes and times."""
    return (
        one.kind == other.kind
        and one.size == other.size
        and one.blocks == other.blocks
        and one.link == other.link
    )


def tree_digest(entries: Iterable[Entry], *, ignore_permissions: bool) -> bytes:
    """The digest that two trees share exactly when they hold the same; `entries` in any order."""
    rows: list[tuple[object, ...]] = [
        (
            entry.path,
            entry.kind[0],
            -1 if ignore_permissions or entry.kind == "symlink" else entry.mode & PERMISSIONS,
            entry.size,
            entry.blocks,
            entry.link,
        )
        for entry in sorted(entries, key=_path_of)
    ]
    try:
        encoded = _encoder.encode(rows)
    except UnicodeEncodeError:
        encoded = _encoder.encode([tuple(map(_as_on_disk, row)) for row in rows])
    return hashlib.sha256(_TREE_LABEL + encoded).digest()


def _path_of(entry: Entry) -> str:
    return entry.path


def _as_on_disk(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="surrogateescape")
    return value


def split_batches(entries: Iterable[Entry]) -> list[tuple[Entry, ...]]:
    """Entries in batches that each fit well into one control frame."""
    batches: list[tuple[Entry, ...]] = []
    batch: list[Entry] = []
    room = BATCH_BYTES
    for entry in entries:
        # A code point takes at most four bytes; 64 covers all numbers and lengths.
        need = 4 * (len(entry.path) + len(entry.link)) + len(entry.blocks) + 64
        if batch and need > room:
            batches.append(tuple(batch))
            batch, room = [], BATCH_BYTES
        batch.append(entry)
        room -= need
    if batch:
        batches.append(tuple(batch))
    return batches


def find_collision(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two paths that are one on a file system that folds case or normalises Unicode, if any."""
    seen: dict[str, str] = {}
    for path in paths:
        key = path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()
        other = seen.setdefault(key, path)
        if other is not path:
            return other, path
    return None


def names_collide(one: str, other: str) -> PathRefused:
    """What to say of two paths that `find_collision` found."""
    return PathRefused(
        f"{one!r} and {other!r} differ only in case or Unicode form, and would be one file on some hosts",
        hint="rename one of them at the source, or leave one out with ignore_patterns or exclude",
    )


class IndexCheck:
    """Takes an index batch by batch and refuses all that a well-behaved primary never sends.

    Bounds are the agent's own rules. `reserved` are paths that the tree must leave alone: of rendered
    files, and of the agent's own. `known` are entries that are not sent, as the agent has them from an index
    that it took earlier. Raises PathRefused for a path, RemoteProtocolError for anything else.
    """

    def __init__(
        self,
        *,
        entries: int,
        total_bytes: int,
        max_entries: int,
        max_file_size: int,
        max_total_size: int,
        reserved: Collection[str] = (),
        known: Sequence[Entry] = (),
    ) -> None:
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
        self._max_file_size = min(max_file_size, MAX_FILE_SIZE)
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
        """Each was checked when it came; what depends on the host's rules or on other entries is not."""
        self._announced -= len(known)
        if self._announced < 0:
            raise RemoteProtocolError("the index refers to more entries than it announced")
        self._kinds = {entry.path: entry.kind for entry in known}
        if len(self._kinds) != len(known):
            raise RemoteProtocolError("the index refers to an entry twice")
        self._bytes = sum(entry.size for entry in known)
        largest = max(known, key=_size_of)
        if self._bytes > self._announced_bytes or largest.size > self._max_file_size:
            self._check_file(largest)
            raise RemoteProtocolError("the index refers to more bytes than it announced")
        self._text_left -= sum(len(entry.path) + len(entry.link) for entry in known)
        for path in self._reserved & self._kinds.keys():
            raise PathRefused(f"the index names {path!r}, which is a rendered file's or the agent's own")

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
        if path <= self._last or (self._known and path in self._kinds):
            raise RemoteProtocolError(f"the index is not in order at {path!r}, or names it twice")
        self._text_left -= len(path) + len(entry.link)
        if self._text_left < 0:
            raise RemoteProtocolError("the paths and links of the index are too long")
        above = parent_of(path)
        if above and self._kinds.get(above) != "directory":
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
        if len(self.entries) != self._announced or self._bytes != self._announced_bytes:
            raise RemoteProtocolError("the index holds less than it announced")
        if self._known:
            self._check_above_known()
            self.entries = sorted([*self._known, *self.entries], key=_path_of)
        collision = find_collision(self._kinds)
        if collision:
            raise names_collide(*collision)
        if tree_digest(self.entries, ignore_permissions=ignore_permissions) != tree:
            raise RemoteProtocolError("the index is not of the tree that the task names")
        return tuple(self.entries)

    def _check_above_known(self) -> None:
        for above in {parent_of(entry.path) for entry in self._known} - {""}:
            if self._kinds.get(above) != "directory":
                raise PathRefused(f"the index has entries below {above!r}, which is no directory of it")
        for path in self._above_reserved & self._kinds.keys():
            if self._kinds[path] != "directory":
                raise PathRefused(f"the index names {path!r}, which is above a rendered file")


def _size_of(entry: Entry) -> int:
    return entry.size


def _link_fits(link: str) -> bool:
    if "\0" in link:
        return False
    try:
        return len(link.encode()) <= MAX_PATH_BYTES - 1
    except UnicodeEncodeError:
        return False


def by_path(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    return {entry.path: entry for entry in entries}
