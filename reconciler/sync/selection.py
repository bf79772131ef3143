"""Which paths of a scanned tree go to the agents, whether they can, and how they are told."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from agent.errors import PathRefused, TransferFailed
from agent.filenames import named
from agent.ignore import Ignore
from agent.index import (
    MAX_FILE_SIZE,
    MAX_TIME,
    ancestors,
    check_path,
    directory_entry,
    file_entry,
    find_collision,
    names_collide,
    symlink_entry,
)
from agent.scan import Found, Scan
from agent.wire.messages import Entry


class Selection:
    """Which paths of a scan are sent."""

    def __init__(
        self,
        ignore: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        reserved: Collection[str] = (),
    ) -> None:
        self.leave_out = Ignore([*ignore, *exclude])
        self._include = Ignore(include)
        self.reserved = frozenset(reserved)
        self._above_reserved = frozenset(above for path in reserved for above in ancestors(path))

    def choose(self, found: dict[str, Found]) -> dict[str, Found]:
        chosen = dict(found)
        for path in self._above_reserved:
            there = chosen.get(path)
            if there is not None and there.kind != "directory":
                del chosen[path]
        if self._include:
            matching = [
                path
                for path, there in chosen.items()
                if self._include.covers(path, there.kind == "directory")
            ]
            wanted = {*matching, *(above for path in matching for above in ancestors(path))}
            chosen = {path: there for path, there in chosen.items() if path in wanted}
        return chosen

    def kept_back(self, scan: Scan) -> frozenset[str]:
        """What would be sent but for its name, which is one of trueup's own."""
        folders = scan.ignored_folders
        return frozenset(
            path for path in scan.own if not self._include or self._include.covers(path, path in folders)
        )


def unsent(found: Mapping[str, Found], own: Iterable[str]) -> list[str]:
    """A warning for each path that no index can hold; `own` are those whose names are trueup's own."""
    others = sorted(path for path, there in found.items() if there.kind == "other")
    return [
        *(f"{named(path)} is a FIFO, socket or device and is not sent" for path in others),
        *(f"{named(path)} has a name that only trueup gives and is not sent" for path in sorted(own)),
    ]


def entries_of(
    found: Iterable[tuple[str, Found]], contents: Mapping[str, bytes | None], directory: Path
) -> list[Entry]:
    """The entries of an index, in the order given. Raises TransferFailed for a file without contents."""
    entries: list[Entry] = []
    for path, there in found:
        if there.kind == "file" and contents[path] is None:
            raise TransferFailed(f"{str(directory / path)!r} changed while it was read")
        if there.kind != "other":
            entries.append(entry_of(path, there, contents.get(path)))
    return entries


def check_sendable(found: Mapping[str, Found], checked: Mapping[str, Found]) -> None:
    """Raises PathRefused for what no agent would take. `checked` are entries that this was asked of before.
    Pure."""
    is_new = False
    for path, there in found.items():
        before = checked.get(path)
        if there == before:
            continue
        if before is None:
            is_new = True
            check_path(path)
        if there.kind == "file" and there.size > MAX_FILE_SIZE:
            raise PathRefused(f"{path!r} has {there.size} bytes; at most {MAX_FILE_SIZE} can be sent")
        if there.kind == "symlink":
            _check_link(path, there.link)
    collision = find_collision(found) if is_new else None
    if collision:
        raise names_collide(*collision)


def entry_of(path: str, found: Found, blocks: bytes | None) -> Entry:
    """How an index has what was found; `blocks` are those of a file."""
    mtime_ns = sendable_time(found)
    if found.kind == "directory":
        return directory_entry(path, mode=found.mode, mtime_ns=mtime_ns)
    if found.kind == "symlink":
        return symlink_entry(path, mtime_ns=mtime_ns, link=found.link)
    assert found.kind == "file" and blocks is not None
    return file_entry(path, mode=found.mode, size=found.size, mtime_ns=mtime_ns, blocks=blocks)


def sendable_time(found: Found) -> int:
    """The modification time as it can be sent; times before 1970 become 1970."""
    return min(max(found.mtime_ns, 0), MAX_TIME)


def _check_link(path: str, link: str) -> None:
    try:
        link.encode()
    except UnicodeEncodeError as error:
        raise PathRefused(f"where {path!r} leads is not valid UTF-8", hint="mend or ignore it") from error
