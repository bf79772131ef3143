"""What a repository holds, as values, and the parsers for what git prints about it. Pure.

Formats: `git help ls-remote`, `for-each-ref`, `ls-tree`, `cat-file`; object layouts as in "Git Objects" of
the Git book. Names from a repository are bytes; they become `str` with surrogate escapes, so that no name
is lost and `check_tree` can refuse what is not UTF-8. Messages are text in any case.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from reconciler.errors import GitRefused
from reconciler.git.failures import MirrorBroken
from reconciler.git.urls import shown

HEADS: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
MIRRORED: Final = (HEADS, TAGS)
"""Prefixes of the refs that a mirror keeps."""

LEASE_REF: Final = "refs/trueup/lease"
"""Who acts (`reconciler.lease`). It moves every few seconds, so no mirror keeps it: where nothing else moved,
nothing is fetched. As it is no branch and no tag, a push to it starts no workflow and no webhook."""

MAX_ENTRIES: Final = 1_000_000
"""Leaves of one tree; more is refused before they are taken apart."""

REF_FORMAT: Final = (
    "%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)%00%(contents:body)%00"
)
"""For `for-each-ref`: six fields of a ref, each ended by NUL; the body ends before a signature."""

_OID = re.compile(r"[0-9a-f]{40}")
_TRAILER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)[ \t]*:[ \t]*(.*)")

Kind = Literal["file", "symlink", "submodule"]
_KINDS: Final[Mapping[int, Kind]] = {0o100000: "file", 0o120000: "symlink", 0o160000: "submodule"}


@dataclass(frozen=True, slots=True)
class Refs:
    """A repository's refs at one moment. `heads` and `tags` go from short names to commit ids (a tag's
    commit, peeled; tags of other objects are left out), `all` from full names to object ids.

    `rewound`: branches that the refresh found moved to a commit that does not contain their old one.
    """

    heads: Mapping[str, str]
    tags: Mapping[str, str]
    all: Mapping[str, str]
    rewound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A leaf of a tree. `mode` as git keeps it, such as 0o100644; `size` in bytes, 0 for a submodule."""

    path: str
    mode: int
    kind: Kind
    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class CommitObject:
    """A commit. `author` reads `Name <email>`; `time` is the committer's, in seconds since 1970."""

    oid: str
    tree: str
    parents: tuple[str, ...]
    message: str
    author: str
    time: int


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a commit. `trailers` only of an annotated tag's own message; a key's last value counts."""

    name: str
    commit: str
    annotated: bool
    trailers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalRef:
    """One line of `for-each-ref`. `peeled` is (type, id) of what a tag object points to, once."""

    name: str
    kind: str
    oid: str
    peeled: tuple[str, str] | None
    body: str


def is_oid(text: str) -> bool:
    """Whether `text` is a whole object id (SHA-1, lower-case hex)."""
    return _OID.fullmatch(text) is not None


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def parse_ls_remote(output: bytes, url: str, wanted: tuple[str, ...] = MIRRORED) -> dict[str, str]:
    """Full ref name to object id, of the refs with the `wanted` prefixes alone, without peeled lines.

    Raises GitRefused for a repository that uses SHA-256 object names.
    """
    refs: dict[str, str] = {}
    for line in text_of(output).split("\n"):
        oid, _, name = line.partition("\t")
        if not name.startswith(wanted) or name.endswith("^{}"):
            continue
        if not is_oid(oid):
            raise GitRefused(f"{shown(url)} uses SHA-256 object names", hint="use a SHA-1 repository")
        refs[name] = oid
    return refs


def parse_local_refs(output: bytes) -> tuple[LocalRef, ...]:
    """The records of `for-each-ref` with REF_FORMAT."""
    fields = output.split(b"\0")
    refs = []
    for at in range(0, len(fields) - 1, 6):
        name, kind, oid, peeled_kind, peeled = map(text_of, fields[at : at + 5])
        # As of commits: what a message says is told and recorded, where only text may stand.
        body = fields[at + 5].decode("utf-8", "replace")
        refs.append(LocalRef(name.lstrip("\n"), kind, oid, (peeled_kind, peeled) if peeled else None, body))
    return tuple(refs)


def nested_tags(refs: Iterable[LocalRef]) -> tuple[str, ...]:
    """Ids of tag objects that point to another tag object; they need one more question to git."""
    return tuple(ref.oid for ref in refs if ref.peeled and ref.peeled[0] == "tag")


def collect_refs(refs: Iterable[LocalRef], nested: Mapping[str, str]) -> tuple[Refs, tuple[Tag, ...]]:
    """Refs and tags of a mirror. `nested`: tag object id to commit id, for those of `nested_tags`."""
    heads: dict[str, str] = {}
    tags: list[Tag] = []
    everything: dict[str, str] = {}
    for ref in refs:
        everything[ref.name] = ref.oid
        if ref.name.startswith(HEADS):
            heads[ref.name.removeprefix(HEADS)] = ref.oid
        elif ref.name.startswith(TAGS) and (commit := _commit_of_tag(ref, nested)):
            annotated = ref.kind == "tag"
            trailers = parse_trailers(ref.body) if annotated else {}
            tags.append(Tag(ref.name.removeprefix(TAGS), commit, annotated, MappingProxyType(trailers)))
    by_name = {tag.name: tag.commit for tag in tags}
    found = Refs(MappingProxyType(heads), MappingProxyType(by_name), MappingProxyType(everything))
    return found, tuple(tags)


def _commit_of_tag(ref: LocalRef, nested: Mapping[str, str]) -> str | None:
    if ref.kind == "commit":
        return ref.oid
    if ref.peeled is None:
        return None
    kind, oid = ref.peeled
    return oid if kind == "commit" else nested.get(ref.oid)


def parse_trailers(body: str) -> dict[str, str]:
    """`Key: value` lines of the last paragraph of a message's body, folded lines joined by a space.

    Empty unless every line of that paragraph is a trailer or continues one. (git 2.39 finds no trailers in
    a signed tag, so this does not rely on its `contents:trailers`.)
    """
    trailers: dict[str, str] = {}
    key = ""
    for line in re.split(r"\n[ \t]*\n", body.strip("\n \t"))[-1].split("\n"):
        if key and line[:1] in (" ", "\t"):
            trailers[key] = f"{trailers[key]} {line.strip()}".strip()
        elif match := _TRAILER.fullmatch(line.rstrip()):
            key = match[1]
            trailers[key] = match[2].strip()
        else:
            return {}
    return trailers


def parse_ls_tree(output: bytes) -> tuple[TreeEntry, ...]:
    """The records of `ls-tree -rz -l`, sorted by path; GitRefused when there are more than MAX_ENTRIES."""
    count = output.count(b"\0")
    if count > MAX_ENTRIES:
        raise GitRefused(f"a tree with {count} files is over the limit of {MAX_ENTRIES}")
    entries = []
    for record in output.split(b"\0")[:-1]:
        head, _, path = record.partition(b"\t")
        mode_text, _, oid, size = head.split()
        mode = int(mode_text, 8)
        kind = _KINDS.get(mode & 0o170000)
        if kind is None:
            raise MirrorBroken(f"a tree holds an entry of the unknown mode {mode:o}")
        entries.append(TreeEntry(text_of(path), mode, kind, oid.decode(), 0 if size == b"-" else int(size)))
    entries.sort(key=lambda entry: entry.path)
    return tuple(entries)


def parse_commit(oid: str, raw: bytes) -> CommitObject:
    """A commit from its object's bytes; MirrorBroken when it has not a commit's form."""
    head, _, message = raw.partition(b"\n\n")
    headers: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        if name:  # an empty name continues a header such as a signature, none of which is of use here
            headers.setdefault(name, []).append(value)
    try:
        author = headers[b"author"][0].rsplit(b" ", 2)[0]
        time = int(headers[b"committer"][0].rsplit(b" ", 2)[1])
        parents = tuple(parent.decode() for parent in headers.get(b"parent", []))
        tree = headers[b"tree"][0].decode()
    except (KeyError, IndexError, ValueError):
        raise MirrorBroken(f"commit {oid} has not the form of a commit") from None
    return CommitObject(
        oid, tree, parents, message.decode("utf-8", "replace"), author.decode("utf-8", "replace"), time
    )


def parse_batch(output: bytes) -> dict[str, tuple[str, bytes]]:
    """Object id to (type, content) from `cat-file --batch`; objects that are missing are left out."""
    found: dict[str, tuple[str, bytes]] = {}
    at = 0
    while at < len(output):
        end = output.index(b"\n", at)
        oid, kind, *size = output[at:end].decode().split(" ")
        at = end + 1
        if size:
            length = int(size[0])
            found[oid] = (kind, output[at : at + length])
            at += length + 1
    return found
