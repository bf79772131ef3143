"""Which trees may be placed on a disk, and how a changed tree is written. Pure.

A new tree is made of git's own object formats: blobs and trees are put together and named here, then handed
to git as one pack, so that any number of files costs one child process. Formats: `git help
gitformat-pack` and "Git Objects" in the Git book.
"""

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.filenames import as_on_disk, is_text, named
from reconciler.errors import GitRefused
from reconciler.git.objects import TreeEntry
from reconciler.git.urls import DECEIVING, shown

MAX_TREE_BYTES: Final = 16 * 1024**3
"""Sum of the files of a tree that is placed on a disk."""

_MAX_NAME: Final = 255
_MAX_PATH: Final = 4095
_MAX_DEPTH: Final = 256
_FILE_MODE: Final = 0o100644
_TREE_MODE: Final = 0o40000
_PACK_TYPES: Final = {"tree": 2, "blob": 3}
_SHOWN: Final = 3

# Characters that some file systems leave out of names, so that `.g<one of them>it` is `.git` there.
_IGNORED: Final = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be written: its type as git names it, its id, its content."""

    kind: str
    oid: str
    content: bytes


def path_fault(path: str) -> str | None:
    """Why this path may not be placed below a directory; None when it may."""
    if not path.isascii():
        try:
            encoded = len(path.encode())
        except UnicodeEncodeError:
            return "is not UTF-8"
    else:
        encoded = len(path)
    if encoded > _MAX_PATH:
        return f"is longer than {_MAX_PATH} bytes"
    if DECEIVING.search(path):
        return "holds control or direction characters"
    names = path.split("/")
    if len(names) > _MAX_DEPTH:
        return f"is deeper than {_MAX_DEPTH} directories"
    for name in names:
        if name in ("", ".", ".."):
            return "is absolute" if path.startswith("/") else "is not canonical"
        if name.translate(_IGNORED).rstrip(". ").lower() == ".git":
            return "names git's own directory"
        if len(name.encode()) > _MAX_NAME:
            return f"has a component longer than {_MAX_NAME} bytes"
    return None


def check_tree(entries: Iterable[TreeEntry], *, max_bytes: int = MAX_TREE_BYTES) -> None:
    """GitRefused unless every leaf can be placed below a directory without leaving or deceiving it.

    Refused: `..`, absolute and empty names, `.git` in any case, control and direction characters, names
    that are not UTF-8, a path twice, a path below a file or link, links without a usable target, more than
    `max_bytes` in all. The error names the first few.
    """
    faults: list[str] = []
    leaves: set[str] = set()
    parents: set[str] = set()
    total = 0
    for entry in entries:
        fault = path_fault(entry.path)
        if fault is None and entry.path in leaves:
            fault = "is there twice"
        if fault is None and entry.kind == "symlink" and not 0 < entry.size <= _MAX_PATH:
            fault = f"is a link whose target has {entry.size} bytes"
        if fault:
            faults.append(f"{_named(entry.path)} {fault}")
            continue
        total += entry.size
        leaves.add(entry.path)
        at = entry.path.rfind("/")
        while at > 0 and (parent := entry.path[:at]) not in parents:
            parents.add(parent)
            at = parent.rfind("/")
    faults += [f"{shown(path)!r} is a file and a directory" for path in sorted(leaves & parents)]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise GitRefused(
            f"the tree cannot be placed: {', '.join(faults[:_SHOWN])}{more}",
            hint="rename or remove them in git",
        )
    if total > max_bytes:
        raise GitRefused(f"the tree cannot be placed: its files have {total} bytes, the limit is {max_bytes}")


def _named(path: str) -> str:
    return repr(shown(path)) if is_text(path) else named(path, _MAX_NAME)


def changed_tree(
    base: Sequence[TreeEntry], changes: Mapping[str, bytes | None]
) -> tuple[str, tuple[NewObject, ...]]:
    """The id of the tree that `base` becomes, and the objects to write for it, blobs first.

    `changes`: path to new content; None removes the path, which need not exist. A changed file keeps its
    mode. Raises GitRefused for a path that may not be placed, or that is a file and a directory at once.
    """
    leaves: dict[str, tuple[int, str]] = {entry.path: (entry.mode, entry.oid) for entry in base}
    blobs: dict[str, NewObject] = {}
    for path, content in changes.items():
        if fault := path_fault(path):
            raise GitRefused(f"cannot write {shown(path)!r}: it {fault}")
        mode = leaves.pop(path, (_FILE_MODE, ""))[0]
        if content is not None:
            blob = _new("blob", content)
            blobs[blob.oid] = blob
            leaves[path] = (mode if mode & 0o170000 == 0o100000 else _FILE_MODE, blob.oid)
    trees: dict[str, NewObject] = {}
    root = _write(_nest(leaves), trees)
    return root, (*blobs.values(), *trees.values())


_Leaf = tuple[int, str]
_Node = dict[str, "_Leaf | _Node"]


def _nest(leaves: Mapping[str, _Leaf]) -> _Node:
    root: _Node = {}
    for path, leaf in leaves.items():
        *directories, name = path.split("/")
        if len(directories) >= _MAX_DEPTH:
            raise GitRefused(f"{shown(path)!r} is deeper than {_MAX_DEPTH} directories")
        node = root
        for directory in directories:
            below = node.setdefault(directory, {})
            if not isinstance(below, dict):
                raise GitRefused(f"cannot write {shown(path)!r}: {shown(directory)!r} in it is a file")
            node = below
        if name in node:
            raise GitRefused(f"cannot write {shown(path)!r}: it is a directory")
        node[name] = leaf
    return root


def _write(node: _Node, trees: dict[str, NewObject]) -> str:
    """Add the tree objects of `node` and of all below it to `trees`; the id of `node`'s own."""
    records: list[tuple[bytes, bytes]] = []
    for name, child in node.items():
        raw = as_on_disk(name)
        if isinstance(child, dict):
            # Git orders a directory as if its name ended with a slash.
            mode, oid, key = _TREE_MODE, _write(child, trees), raw + b"/"
        else:
            (mode, oid), key = child, raw
        records.append((key, b"%o %s\0" % (mode, raw) + bytes.fromhex(oid)))
    tree = _new("tree", b"".join(record for _, record in sorted(records)))
    trees[tree.oid] = tree
    return tree.oid


def _new(kind: str, content: bytes) -> NewObject:
    return NewObject(kind, object_id(kind, content), content)


def object_id(kind: str, content: bytes) -> str:
    """The name git gives an object: SHA-1 over a header and its content."""
    return hashlib.sha1(
        b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False
    ).hexdigest()


def pack(objects: Sequence[NewObject]) -> bytes:
    """A version 2 pack of whole objects, as `git unpack-objects` reads it."""
    parts = [b"PACK", (2).to_bytes(4, "big"), len(objects).to_bytes(4, "big")]
    for new in objects:
        size = len(new.content)
        # First byte: 3 bits of type, 4 of size; then 7 bits of size each; the top bit says more follow.
        byte, size = _PACK_TYPES[new.kind] << 4 | size & 0x0F, size >> 4
        while size:
            parts.append(bytes([byte | 0x80]))
            byte, size = size & 0x7F, size >> 7
        parts += [bytes([byte]), zlib.compress(new.content)]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()
