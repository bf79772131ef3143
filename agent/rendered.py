"""Files rendered in the primary's memory: checked, compared with what is there, and placed.

Their content is secret. It is held in memory, written to a file that only the agent's user can open
until it has its owner and mode, and appears in no log, error, manifest or report.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence

from agent import hiding
from agent.errors import PathRefused
from agent.folders import Folders
from agent.index import PERMISSIONS, ancestors, check_path
from agent.owners import UNCHANGED, resolve_owner
from agent.scan import OPEN_FILE, look_at, read_exactly
from agent.wire.messages import RenderedContent
from agent.writer import Writer

_SHORTEST_SECRET = 6
"""Shorter pieces are not hidden in output: they would hide half of any text."""

_QUOTED = re.compile(
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*+)"|'(?P<single>[^'\n]*+)')(?P<colon>\s*:)?""", re.DOTALL
)
"""A text in quotes; where a colon follows it is a name."""

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def check_rendered(files: Sequence[RenderedContent]) -> None:
    """Raises PathRefused unless the paths are canonical, all different and none below another."""
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise PathRefused("two rendered files have the same path")
    for file in files:
        check_path(file.path)
        inside = next((above for above in ancestors(file.path) if above in paths), None)
        if inside is not None:
            raise PathRefused(f"rendered file {file.path!r} lies below rendered file {inside!r}")
        if not 0 <= file.mode <= PERMISSIONS:
            raise PathRefused(f"the mode of rendered file {file.path!r} has more than permission bits")


def check_apart(files: Sequence[RenderedContent], private: frozenset[str]) -> None:
    """Raises PathRefused if a rendered file would be one of the agent's own `private` files, or in one."""
    for file in files:
        if not private.isdisjoint([file.path, *ancestors(file.path)]):
            raise PathRefused(
                f"rendered file {file.path!r} lies where this agent keeps its own files",
                hint="name another path",
            )


def differing(
    root_fd: int | None, files: Sequence[RenderedContent], owners: Collection[str]
) -> list[RenderedContent]:
    """Those files that are not in the target as they should be, all where it is not there; blocks, changes
    nothing."""
    if root_fd is None:
        return list(files)
    with Folders(root_fd) as folders:
        return [file for file in files if not _is_right(folders, file, owners)]


def _is_right(folders: Folders, file: RenderedContent, owners: Collection[str]) -> bool:
    there = look_at(folders, file.path)
    if there is None or there.kind != "file" or there.size != len(file.content):
        return False
    above, name = folders.locate(file.path)
    fd = os.open(name, OPEN_FILE, dir_fd=above)
    try:
        status = os.fstat(fd)
        if stat.S_IMODE(status.st_mode) != file.mode or not stat.S_ISREG(status.st_mode):
            return False
        uid, gid, _ = resolve_owner(file.owner, file.group, owners)
        if uid not in (UNCHANGED, status.st_uid) or gid not in (UNCHANGED, status.st_gid):
            return False
        content = bytearray(len(file.content))
        return read_exactly(fd, memoryview(content), 0) and content == file.content
    finally:
        os.close(fd)


def place(writer: Writer, files: Sequence[RenderedContent], owners: Collection[str]) -> list[str]:
    """Places the files, each atomically; warnings about owners that are not used. Blocks."""
    warnings: list[str] = []
    for file in files:
        uid, gid, notes = resolve_owner(file.owner, file.group, owners)
        warnings += [f"{file.path!r}: {note}" for note in notes]
        writer.put_rendered(file.path, file.content, mode=file.mode, uid=uid, gid=gid)
    return warnings


def hide(text: str, files: Sequence[RenderedContent]) -> str:
    """`text` with what looks like a value in one of the files replaced by `***`, also where it is encoded.

    A command may print what it read. Lines, what stands behind their first `=` or `:`, and what stands in
    quotes and is no name, are hidden; also as a program reads it, without escapes.
    """
    pieces: set[str] = set()
    for file in files:
        content = file.content.decode(errors="replace")
        lines = content.splitlines()
        for line in lines:
            pieces.add(line.strip())
            for mark in "=:":
                pieces.add(line.partition(mark)[2].strip().strip("\"'"))
        # By lines too: a quote that belongs to no other one shifts all that follow it.
        for part in {content, *lines}:
            for value in _quoted(part):
                pieces.update([value, *(line.strip() for line in value.splitlines())])
    return hiding.hide(text, (piece for piece in pieces if len(piece) >= _SHORTEST_SECRET))


def _quoted(text: str) -> Iterator[str]:
    for found in _QUOTED.finditer(text):
        if found["colon"]:
            continue
        if (single := found["single"]) is not None:
            yield single
            continue
        written = found["double"]
        yield written
        yield _ESCAPE.sub(r"\1", written)
        with contextlib.suppress(ValueError):
            # Half a character, which JSON can write, is in no output.
            read = json.loads(f'"{written}"', strict=False)
            yield read.encode(errors="replace").decode()
