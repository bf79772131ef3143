"""Secret values that can be recognised wherever they turn up, and the search for them.

A test that needs a secret takes `canary("db-password")`. At the end of the whole run `tests/conftest.py`
searches everything the run left below its temporary directory, and everything the tests printed, for the
marker that all these values share. A find fails the run. Files that are meant to hold a secret, the inputs
(an env file, an Infisical double's data) and the delivered ones (a target's `.env`), are named with
`may_hold(path)`.

Covered: contents and names of files and targets of symbolic links; SQLite files with their journals as raw
pages (a value that an overflow page cuts in two inside the marker would be missed); git objects, loose and
packed; the marker as it is, in base64 at each of the three alignments, and in hexadecimal. Percent-encoding
leaves the marker as it is. Not covered: other compressed or encrypted files.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Put together at run time, so that neither this file nor its compiled form holds the marker: a test may
# clone this repository into its temporary directory.
MARKER = "-".join(("trueup", "canary", ""))
_SUFFIX = "5e0d1c7a"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOOSE_OBJECT = re.compile(r"/objects/[0-9a-f]{2}/[0-9a-f]{38,62}$")
_CHUNK = 8 * 1024 * 1024
_GIT_DEADLINE = 120.0

_registry: Path | None = None


def canary(name: str) -> str:
    """A secret value for tests: the same one for the same name, recognisable by its marker."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a canary's name has letters, digits, '.', '_' and '-' only: {name!r}")
    return f"{MARKER}{name}-{_SUFFIX}"


def may_hold(path: str | os.PathLike[str]) -> Path:
    """Say that a file, or everything below a directory, is meant to hold canaries; gives the path back.

    The path need not exist yet. The registration is a small file, so that the process that searches at the
    end sees what all workers registered.
    """
    named = Path(path)
    if _registry is not None:
        lines = sorted({os.path.abspath(named), os.path.realpath(named)})  # noqa: PTH100 - Path.absolute keeps ".."
        (_registry / uuid.uuid4().hex).write_bytes(b"\0".join(os.fsencode(line) for line in lines))
    return named


def use_registry(directory: Path) -> None:
    """Where `may_hold` writes; called once in each process by `tests/conftest.py`."""
    global _registry
    directory.mkdir(parents=True, exist_ok=True)
    _registry = directory


def registered(directory: Path) -> frozenset[Path]:
    """All paths that any process of this run registered."""
    return frozenset(
        Path(os.fsdecode(line)) for file in directory.iterdir() for line in file.read_bytes().split(b"\0")
    )


@dataclass(frozen=True)
class Find:
    """One place where a canary was found, or which could not be searched. Never holds the value."""

    place: str
    offset: int | None
    what: str

    def __str__(self) -> str:
        at = "" if self.offset is None else f" at byte {self.offset}"
        return f"{redact(self.place)}{at}: {self.what}"


def redact(text: str) -> str:
    """The text with every canary's recognisable part taken out."""
    return re.sub(re.escape(MARKER) + r"[A-Za-z0-9._-]*", "<canary>", text)


def _needles() -> dict[str, tuple[bytes, ...]]:
    marker = MARKER.encode()
    encoded = set()
    for lead in range(3):
        # Characters that also depend on the bytes before or after the marker are cut off at both ends.
        first = -(-lead * 8 // 6)
        last = (lead + len(marker)) * 8 // 6
        encoded.add(base64.b64encode(b"\0" * lead + marker)[first:last])
        encoded.add(base64.urlsafe_b64encode(b"\0" * lead + marker)[first:last])
    return {
        "a canary value": (marker,),
        "a canary value in base64": tuple(sorted(encoded)),
        "a canary value in hexadecimal": (marker.hex().encode(), marker.hex().upper().encode()),
    }


NEEDLES = _needles()
_OVERLAP = max(len(needle) for group in NEEDLES.values() for needle in group) - 1


def search_bytes(data: bytes, place: str, base: int = 0) -> list[Find]:
    """The first find of each form in `data`; offsets are counted from `base`."""
    finds = []
    for what, group in NEEDLES.items():
        offsets = [offset for needle in group if (offset := data.find(needle)) >= 0]
        if offsets:
            finds.append(Find(place, base + min(offsets), what))
    return finds


def search_text(text: str, place: str) -> list[Find]:
    """As `search_bytes`, for captured output."""
    return search_bytes(text.encode("utf-8", "surrogateescape"), place)


def search_tree(root: Path, *, allowed: Iterable[Path] = ()) -> list[Find]:
    """Search every name, link target and regular file below `root`, save what `allowed` covers."""
    covered = frozenset(allowed)
    finds: list[Find] = []
    packed: set[Path] = set()

    def could_not_look(error: OSError) -> None:
        finds.append(Find(str(error.filename), None, f"could not be searched: {error.strerror}"))

    for directory, names, files in os.walk(root, onerror=could_not_look):
        here = Path(directory)
        names[:] = [name for name in names if here / name not in covered]
        for name in [*names, *files]:
            path = here / name
            if path in covered:
                continue
            try:
                finds += _search_entry(path)
            except FileNotFoundError:
                continue  # a directory that a process under watch is still removing
            except OSError as error:
                could_not_look(error)
            if name.endswith(".pack") and here.name == "pack":
                packed.add(here.parent)
    for objects in sorted(packed):
        finds += _search_packed(objects)
    return finds


def _search_entry(path: Path) -> list[Find]:
    finds = [
        Find(str(path.parent), None, f"{find.what} in a name")
        for find in search_bytes(os.fsencode(path.name), "")
    ]
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return finds + search_bytes(os.fsencode(path.readlink()), str(path))
    if stat.S_ISDIR(mode):
        if mode & 0o500 != 0o500:
            path.chmod(0o700)  # a test that took the permission away; the walk enters it next
        return finds
    if not stat.S_ISREG(mode):
        return finds
    if mode & 0o400 == 0:
        path.chmod(0o600)
    finds += _search_stream(_data_of(path), str(path))
    if _LOOSE_OBJECT.search(str(path)):
        try:
            content = zlib.decompress(path.read_bytes())
        except zlib.error:
            return finds  # a test that broke an object on purpose; its raw bytes were searched
        finds += search_bytes(content, f"{path} (git object)")
    return finds


def _search_stream(chunks: Iterable[tuple[int, bytes]], place: str) -> list[Find]:
    """Search consecutive chunks, each with its offset; at most one find for each form."""
    finds: dict[str, Find] = {}
    tail, tail_end = b"", 0
    for offset, chunk in chunks:
        lead = tail if tail_end == offset else b""
        for find in search_bytes(lead + chunk, place, offset - len(lead)):
            finds.setdefault(find.what, find)
        tail, tail_end = chunk[-_OVERLAP:], offset + len(chunk)
    return list(finds.values())


def _data_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """A file's bytes without its holes: tests of size limits make sparse files of many gigabytes."""
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole follows
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            while start < end:
                chunk = file.read(min(_CHUNK, end - start))
                if not chunk:
                    return
                yield start, chunk
                start += len(chunk)


def _search_packed(objects: Path) -> list[Find]:
    """Search a git object directory that has packs, deltas resolved, by letting git print all objects."""
    command = ["git", f"--git-dir={objects.parent}", "cat-file", "--batch-all-objects", "--batch", "--buffer"]
    place = f"{objects} (git objects)"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        finds = _search_stream(_chunks(process.stdout.read), place)
        process.wait(_GIT_DEADLINE)
    return finds


def _chunks(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while chunk := read(_CHUNK):
        yield offset, chunk
        offset += len(chunk)
