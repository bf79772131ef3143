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
from collections.abc import Iterable, Mapping

import msgspec

from agent.blocks import block_size_for
from agent.errors import PathRefused
from agent.filenames import msgpack_form, named
from agent.wire.messages import Entry

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
        raise PathRefused(f"path {named(path)} {problem}")


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
    rows = [_row(entry, ignore_permissions) for entry in sorted(entries, key=path_of)]
    try:
        encoded = _encoder.encode(rows)
    except UnicodeEncodeError:
        encoded = _encoder.encode([tuple(map(_hashable, row)) for row in rows])
    return hashlib.sha256(_TREE_LABEL + encoded).digest()


def tree_rows(entries: Iterable[Entry], *, ignore_permissions: bool) -> bytes:
    """What the digest of a tree covers of some of its entries, which are in path order and UTF-8."""
    rows = [_row(entry, ignore_permissions) for entry in entries]
    return _encoder.encode(rows)[len(array_header(len(rows))) :]


def digest_of_rows(count: int, rows: Iterable[bytes]) -> bytes:
    """As `tree_digest`, of the rows of all of its `count` entries, in path order."""
    digest = hashlib.sha256(_TREE_LABEL + array_header(count))
    for each in rows:
        digest.update(each)
    return digest.digest()


def array_header(count: int) -> bytes:
    """What a MessagePack array of `count` items begins with, in its shortest form."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def _row(entry: Entry, ignore_permissions: bool) -> tuple[object, ...]:
    return (
        entry.path,
        entry.kind[0],
        -1 if ignore_permissions or entry.kind == "symlink" else entry.mode & PERMISSIONS,
        entry.size,
        entry.blocks,
        entry.link,
    )


def path_of(entry: Entry) -> str:
    return entry.path


def _hashable(value: object) -> object:
    return msgpack_form(value) if isinstance(value, str) else value


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
        other = seen.setdefault(folded(path), path)
        if other is not path:
            return other, path
    return None


def folded(path: str) -> str:
    """What two paths share that are one on such a file system."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def names_collide(one: str, other: str) -> PathRefused:
    """What to say of two paths that `find_collision` found."""
    return PathRefused(
        f"{one!r} and {other!r} differ only in case or Unicode form, and would be one file on some hosts",
        hint="rename one of them at the source, or leave one out with ignore_patterns or exclude",
    )


def by_path(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    return {entry.path: entry for entry in entries}
