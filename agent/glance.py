"""Whether a tree is just as it was at a close look: one digest over all that `lstat` shows.

Cheaper than any look that keeps what it sees: the loops run in C, and nothing is remembered of an entry. It
can only say that nothing changed, never what did.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from operator import attrgetter

import msgspec

from agent.errors import PathRefused
from agent.folders import Folders
from agent.index import parent_of
from agent.scan import Found, settled

MAX_EXTRAS = 10_000
"""What else may lie in the directories of a tree; more is looked at closely each time."""

_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
_row = attrgetter("st_mode", "st_size", "st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns")
_encode = msgspec.msgpack.Encoder().encode

Row = tuple[int, ...]


class Glance(msgspec.Struct, frozen=True, array_like=True):
    """What to look at, and the digest of what was seen. `extras` are names in `folders` that only have to be
    there: paths, and whether they are directories."""

    folders: tuple[str, ...]
    extras: tuple[tuple[str, bool], ...]
    digest: bytes


def glance_of(
    found: Mapping[str, Found], folders: Iterable[str], extras: Mapping[str, bool], read_at: int
) -> Glance | None:
    """The glance that fits `found`, a scan of exactly `folders`, which began at `read_at`; the root is the
    folder "". Entries of `extras` may change as they like. Pure.

    None where a later change might not show, or where there are too many extras.
    """
    if len(extras) > MAX_EXTRAS:
        return None
    inside: dict[str, list[tuple[str, Row]]] = {folder: [] for folder in sorted({"", *folders})}
    for path, there in found.items():
        if path in extras:
            continue
        if there.kind not in _KINDS or not settled(there, read_at):
            return None
        row = (
            there.mode | _KINDS[there.kind],
            there.size,
            there.dev,
            there.ino,
            there.mtime_ns,
            there.ctime_ns,
        )
        above, _, name = path.rpartition("/")
        inside[above].append((name, row))
    for path, is_dir in extras.items():
        inside[parent_of(path)].append((path.rpartition("/")[2], (int(is_dir),)))
    digest = hashlib.sha256()
    for folder, items in inside.items():
        items.sort()
        _add(digest, folder, [name for name, _ in items], [row for _, row in items])
    return Glance(tuple(inside), tuple(sorted(extras.items())), digest.digest())


def still(root_fd: int, glance: Glance) -> bool:
    """Whether everything below `root_fd` is as the glance has it; blocks.

    Raises OSError where a directory can't be read: not having looked is no difference.
    """
    extras: dict[str, set[str]] = {}
    for path, _ in glance.extras:
        extras.setdefault(parent_of(path), set()).add(path.rpartition("/")[2])
    digest = hashlib.sha256()
    with Folders(root_fd) as folders:
        for folder in glance.folders:
            try:
                fd = folders.fd(folder)
                names = sorted(os.listdir(fd))
                rows = list(map(_row, map(partial(os.stat, dir_fd=fd, follow_symlinks=False), names)))
            except (FileNotFoundError, PathRefused):
                return False
            if folder in extras:
                rows = _without_extras(names, rows, extras[folder])
            _add(digest, folder, names, rows)
    return digest.digest() == glance.digest


def _without_extras(names: Iterable[str], rows: Iterable[Row], extras: Collection[str]) -> list[Row]:
    return [
        (int(stat.S_ISDIR(row[0])),) if name in extras else row for name, row in zip(names, rows, strict=True)
    ]


def _add(digest: "hashlib._Hash", folder: str, names: list[str], rows: list[Row]) -> None:
    # Names have no NUL; those that are no UTF-8 stand as the bytes on disk.
    listed = "\0".join((folder, *names)).encode(errors="surrogateescape")
    digest.update(_encode((listed, rows)))
