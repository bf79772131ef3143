"""Whether a tree is just as it was at a close look, by all that `lstat` shows.

Cheaper than any look that keeps what it sees: the loops run in C, and no object is made of an entry. A
digest of each directory (`Glance`) says that nothing changed, never what did. `Rows` tell that as well, as
long as each name still stands for a thing of its kind.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import TypeVar

import msgspec

from agent.errors import PathRefused
from agent.folders import Folders
from agent.index import parent_of
from agent.scan import Found, settled

_DIGEST = hashlib.sha256().digest_size

MAX_EXTRAS = 10_000
"""What else may lie in the directories of a tree; more is looked at closely each time."""

_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
_KIND_OF = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
_SEEN = ("st_mode", "st_size", "st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns")
_row = attrgetter(*_SEEN)
_owned_row = attrgetter(*_SEEN, "st_uid", "st_gid", "st_nlink")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[int, ...]]]).decode

Row = tuple[int, ...]

Gathered = TypeVar("Gathered")

Rows = Mapping[str, bytes]
"""What `lstat` shows of all that is in each directory, the root of the tree being the directory ""."""


class Glance(msgspec.Struct, frozen=True, array_like=True):
    """What to look at, and the digests of what was seen in each of `folders`, back to back. `extras` are
    names in them that only have to be there: paths, and whether they are directories."""

    folders: tuple[str, ...]
    extras: tuple[tuple[str, bool], ...]
    digests: bytes


def rows_of(
    found: Mapping[str, Found],
    folders: Iterable[str],
    extras: Mapping[str, bool],
    read_at: int,
    *,
    owned: bool = False,
) -> Rows | None:
    """The rows that fit `found`, a scan of exactly `folders`, which began at `read_at`. Pure.

    Entries of `extras` may change as they like. With `owned`, the rows hold all that `found` does, owners
    among it; otherwise a new owner shows by the time of the change alone.

    None where a later change might not show, or where there are too many extras or some elsewhere.
    """
    return _rows(found, folders, extras, read_at, dict, owned=owned)


def _rows(
    found: Mapping[str, Found],
    folders: Iterable[str],
    extras: Mapping[str, bool],
    read_at: int,
    gather: Callable[[Iterator[tuple[str, bytes]]], Gathered],
    *,
    owned: bool = False,
) -> Gathered | None:
    if len(extras) > MAX_EXTRAS:
        return None
    inside: dict[str, list[str]] = {folder: [] for folder in sorted({"", *folders})}
    for path, there in found.items():
        if path in extras:
            continue
        if there.kind not in _KINDS or not settled(there, read_at):
            return None
        inside[parent_of(path)].append(path)
    for path in extras:
        if parent_of(path) not in inside:
            return None
        inside[parent_of(path)].append(path)

    def row(path: str) -> Row:
        return (int(extras[path]),) if path in extras else _row_of(found[path], owned=owned)

    def rows() -> Iterator[tuple[str, bytes]]:
        # One directory after the other: the rows of all would take more than what was found.
        for folder, paths in inside.items():
            paths.sort()  # all have the same directory above, so this is the order of their names
            names = [path.rpartition("/")[2] for path in paths]
            yield folder, _encoded(folder, names, [row(path) for path in paths])

    return gather(rows())


def glance_of(
    found: Mapping[str, Found], folders: Iterable[str], extras: Mapping[str, bool], read_at: int
) -> Glance | None:
    """As `rows_of`, in a digest."""

    def glance(rows: Iterable[tuple[str, bytes]]) -> Glance:
        looked_at: list[str] = []
        digests: list[bytes] = []
        for folder, each in rows:
            looked_at.append(folder)
            digests.append(_digest(each))
        return Glance(tuple(looked_at), tuple(sorted(extras.items())), b"".join(digests))

    return _rows(found, folders, extras, read_at, glance)


def still(root_fd: int, glance: Glance) -> bool:
    """Whether everything below `root_fd` is as the glance has it; blocks.

    What can't be looked at is not: it may be something that nobody has to look at, such as a mount of a host
    that is away. A close look tells.
    """
    return all(is_still for _, _, is_still in _compared(root_fd, glance))


def rows_if_still(root_fd: int, glance: Glance) -> Rows | None:
    """What `still` has seen, if nothing is another than the glance has it; blocks."""
    rows: dict[str, bytes] = {}
    for folder, seen, is_still in _compared(root_fd, glance):
        if not is_still:
            return None
        rows[folder] = seen
    return rows


def _compared(root_fd: int, glance: Glance) -> Iterator[tuple[str, bytes, bool]]:
    """Each directory as it is now, and whether that is as the glance has it, up to the first that is not."""
    extras = (path for path, _ in glance.extras)
    at, folder = 0, ""
    try:
        for folder, seen in _seen(root_fd, glance.folders, extras):
            is_still = _digest(seen) == glance.digests[at : at + _DIGEST]
            yield folder, seen, is_still
            if not is_still:
                return
            at += _DIGEST
    except (OSError, PathRefused):
        yield folder, b"", False


def with_changes(glance: Glance, rows: Rows, now: Mapping[str, Found | None], read_at: int) -> Glance | None:
    """The glance that has `now` at its paths, and for all else what `rows` were seen with it. Pure.

    None stands for what is gone. None comes back where a later change might not show, or where something
    of `extras` is concerned.
    """
    extras = {path for path, _ in glance.extras}
    if any(path in extras or not _would_show(there, read_at) for path, there in now.items()):
        return None
    digests = _of_those_that_stay(glance, now)
    for folder, names in _by_folder(now).items():
        if folder in digests:
            digests[folder] = _digest(_changed(folder, rows.get(folder), names))
        elif any(there is not None for there in names.values()):
            return None  # in a directory that nobody looks into
    folders = tuple(sorted(digests))
    return Glance(folders, glance.extras, b"".join(map(digests.__getitem__, folders)))


def _would_show(there: Found | None, read_at: int) -> bool:
    """Whether a later change of what is there would."""
    return there is None or (there.kind in _KINDS and settled(there, read_at))


def _by_folder(now: Mapping[str, Found | None]) -> dict[str, dict[str, Found | None]]:
    """What is in each directory, by name."""
    found: dict[str, dict[str, Found | None]] = {}
    for path, there in now.items():
        above, _, name = path.rpartition("/")
        found.setdefault(above, {})[name] = there
    return found


def _of_those_that_stay(glance: Glance, now: Mapping[str, Found | None]) -> dict[str, bytes]:
    """The digests of the directories of a glance that are there `now`, and of new ones, which are empty."""
    digests = {
        folder: glance.digests[number * _DIGEST : (number + 1) * _DIGEST]
        for number, folder in enumerate(glance.folders)
    }
    for path, there in now.items():
        if there is None or there.kind != "directory":
            digests.pop(path, None)
        elif path not in digests:
            digests[path] = _digest(_encoded(path, [], []))
    return digests


def times_in(rows: Rows, folder: str) -> dict[str, int]:
    """The times of the directories and symlinks that are in a directory, by name. Pure."""
    listed, here = _names_and_rows(rows[folder]) if folder in rows else ([], [])
    at = _SEEN.index("st_mtime_ns")
    return {
        name: row[at]
        for name, row in zip(listed, here, strict=True)
        if len(row) > at and not stat.S_ISREG(row[0])
    }


def names_in(rows: Rows, folder: str) -> list[str] | None:
    """The names of all that is in a directory; None for one that was not looked into. Pure."""
    return _names_and_rows(rows[folder])[0] if folder in rows else None


def _names_and_rows(rows: bytes) -> tuple[list[str], list[Row]]:
    listed, here = _decode(rows)
    return listed.decode(errors="surrogateescape").split("\0")[1:], here


def _changed(folder: str, rows: bytes | None, names: Mapping[str, Found | None]) -> bytes:
    """The rows of a directory with other things behind some of its names."""
    inside: dict[str, Row] = {}
    if rows is not None:
        inside.update(zip(*_names_and_rows(rows), strict=True))
    for name, there in names.items():
        if there is None:
            inside.pop(name, None)
        else:
            inside[name] = _row_of(there)
    in_order = sorted(inside)
    return _encoded(folder, in_order, [inside[name] for name in in_order])


def _row_of(there: Found, *, owned: bool = False) -> Row:
    mode = there.mode | _KINDS[there.kind]
    seen = mode, there.size, there.dev, there.ino, there.mtime_ns, there.ctime_ns
    return (*seen, there.uid, there.gid, there.nlink) if owned else seen


def _digest(rows: bytes) -> bytes:
    return hashlib.sha256(rows).digest()


def changed_since(root_fd: int, before: Rows, extras: Iterable[str]) -> tuple[Rows, dict[str, Found]] | None:
    """The rows of now, and those files and directories of a tree whose rows are others than `before`; blocks.

    These rows are those that are made with `owned`.

    None where they cannot tell: something came or went, is of another kind, a symlink, or can't be looked at.
    """
    now: dict[str, bytes] = {}
    changed: dict[str, Found] = {}
    try:
        for folder, rows in _seen(root_fd, before, extras, _owned_row):
            now[folder] = rows
            if rows == before[folder]:
                continue
            (names, here), (names_before, here_before) = map(_names_and_rows, (rows, before[folder]))
            if names != names_before:
                return None
            for name, row, row_before in zip(names, here, here_before, strict=True):
                if row == row_before:
                    continue
                kind = _KIND_OF.get(stat.S_IFMT(row[0]))
                if kind is None or len(row) != len(row_before) or stat.S_IFMT(row_before[0]) != _KINDS[kind]:
                    return None
                mode, size, dev, ino, mtime_ns, ctime_ns, uid, gid, nlink = row
                found = Found(
                    kind, stat.S_IMODE(mode), size, dev, ino, mtime_ns, ctime_ns, "", uid, gid, nlink
                )
                changed[f"{folder}/{name}" if folder else name] = found
    except (OSError, PathRefused):
        return None
    return now, changed


def _seen(
    root_fd: int,
    in_folders: Iterable[str],
    extras: Iterable[str],
    row: Callable[[os.stat_result], Row] = _row,
) -> Iterator[tuple[str, bytes]]:
    """What is in each directory now. Raises OSError, and PathRefused for what is none any more."""
    besides: dict[str, set[str]] = {}
    for path in extras:
        besides.setdefault(parent_of(path), set()).add(path.rpartition("/")[2])
    with Folders(root_fd) as folders:
        for folder in in_folders:
            fd = folders.fd(folder)
            names = sorted(os.listdir(fd))
            rows = list(map(row, map(partial(os.stat, dir_fd=fd, follow_symlinks=False), names)))
            if folder in besides:
                rows = _without_extras(names, rows, besides[folder])
            yield folder, _encoded(folder, names, rows)


def _without_extras(names: Iterable[str], rows: Iterable[Row], extras: Collection[str]) -> list[Row]:
    return [
        (int(stat.S_ISDIR(row[0])),) if name in extras else row for name, row in zip(names, rows, strict=True)
    ]


def _encoded(folder: str, names: list[str], rows: list[Row]) -> bytes:
    # Names have no NUL; those that are no UTF-8 stand as the bytes on disk.
    listed = "\0".join((folder, *names)).encode(errors="surrogateescape")
    return _encode((listed, rows))
