"""Status files as YAML: bytes to `Recorded` and back. Pure, and the same bytes for the same content.

What is written is block style with keys in the order of the structs, maps sorted by key, one line a
string, texts with lines (certificates) as literal blocks. Strings that YAML 1.2 would take for numbers
are quoted as well as those of YAML 1.1, so that every parser reads what was meant.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
import yaml

from reconciler.errors import StatusUnreadable
from reconciler.status.documents import DEPTHS, KINDS, SUMMARY_ID, AnyDocument, Document, Recorded

VERSION: Final = 1
SUFFIX: Final = ".yaml"
MAX_FILE: Final = 4 << 20
"""Bytes of one status file."""
MAX_FILES: Final = 200_000
MAX_PART: Final = 255
"""Bytes of one part of a path, the suffix included: what file systems allow, so that a clone works."""

KIND_NAMES: Final[Mapping[str, str]] = {
    "environments": "Environment",
    "services": "Service",
    "projects": "Sync",
    "nodes": "Node",
    "secrets": "SecretSource",
    "targets": "SecretTarget",
    SUMMARY_ID: "Summary",
}
"""What a file says as its `kind`, by the first part of its id."""

# The C versions are ten times faster; a build of PyYAML without them writes and reads the same documents.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NUMBER_1_2: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Without anchors, and with a style for each string that no parser misreads."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name that PyYAML calls
        return True


def _represent_str(dumper: Any, text: str) -> yaml.Node:
    style = None
    if "\n" in text:
        style = "|"
    elif _NUMBER_1_2.fullmatch(text):
        style = "'"
    return cast(yaml.Node, dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style))


_Dumper.add_representer(str, _represent_str)


def path_of(id: str) -> str:
    """Where the document of that id stands on the branch. StatusUnreadable for an id that has no place."""
    path = id + SUFFIX
    if id_of(path) is None:
        raise StatusUnreadable(f"{id!r} cannot be the path of a status file")
    return path


def id_of(path: str) -> str | None:
    """The id of the document at a path; None for a path that no status file has."""
    if not path.endswith(SUFFIX):
        return None
    id = path.removesuffix(SUFFIX)
    parts = id.split("/")
    if len(parts) != DEPTHS.get(parts[0]):
        return None
    for part in parts:
        if part in ("", ".", "..") or part.lower() == ".git" or not part.isprintable() or "\\" in part:
            return None
        if len(part.encode()) > MAX_PART - len(SUFFIX):
            return None
    return id


def render_document(document: AnyDocument) -> bytes:
    """The file of one document."""
    head = {"version": VERSION, "kind": KIND_NAMES[document.id.partition("/")[0]]}
    return dump({**head, **msgspec.to_builtins(document, order="deterministic")})


def dump(content: Mapping[str, Any]) -> bytes:
    """Plain data as YAML, its keys in the order given."""
    text: str = yaml.dump(
        dict(content),
        Dumper=_Dumper,
        default_flow_style=False,
        allow_unicode=True,
        sort_keys=False,
        width=1 << 20,
    )
    return text.encode()


def parse_document(path: str, content: bytes) -> AnyDocument:
    """The document in a file.

    Unknown keys are ignored: a newer version wrote them. Raises StatusUnreadable for a path that no
    status file has, and for content that is not the document which belongs there.
    """
    id = id_of(path)
    if id is None:
        raise StatusUnreadable(
            f"{path!r} is not the path of a status file",
            hint="a newer trueup wrote it, or it does not belong there",
        )
    if len(content) > MAX_FILE:
        raise StatusUnreadable(
            f"{path} has {len(content)} bytes, more than the {MAX_FILE} a status file may have"
        )
    try:
        loaded = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StatusUnreadable(f"{path} is not YAML: {_one_line(error)}") from None
    if not isinstance(loaded, dict):
        raise StatusUnreadable(f"{path} does not hold a mapping")
    prefix = id.partition("/")[0]
    version, kind, said = (loaded.pop("version", None), loaded.pop("kind", None), loaded.get("id"))
    if version != VERSION or isinstance(version, bool):
        raise StatusUnreadable(
            f"{path} is of version {version!r}, and this trueup reads version {VERSION}",
            hint="use the version that wrote it, or a newer one",
        )
    if kind != KIND_NAMES[prefix]:
        raise StatusUnreadable(f"{path} says that it is a {kind!r}, and {KIND_NAMES[prefix]!r} belongs there")
    if said != id:
        raise StatusUnreadable(f"{path} says that it is of {said!r}")
    try:
        return msgspec.convert(loaded, KINDS[prefix])
    except (msgspec.ValidationError, ValueError) as error:
        raise StatusUnreadable(f"{path}: {_one_line(error)}") from None


def parse_files(files: Mapping[str, bytes]) -> Recorded:
    """All of a branch's files, by path. Raises StatusUnreadable for the first that cannot be read."""
    return Recorded().put(*(parse_document(path, files[path]) for path in sorted(files)))


def render_files(recorded: Recorded) -> dict[str, bytes]:
    """The inverse of `parse_files`."""
    return {path_of(document.id): render_document(document) for document in recorded.documents()}


def render_changes(before: Recorded, after: Recorded) -> dict[str, bytes | None]:
    """The files to write, and as None those to delete, to get from one to the other.

    Documents that are equal are left alone, as whoever wrote them wrote them.
    """
    old = {document.id: document for document in before.documents()}
    new = {document.id: document for document in after.documents()}
    changes: dict[str, bytes | None] = {path_of(id): None for id in old.keys() - new.keys()}
    for id, document in new.items():
        known: Document | None = old.get(id)
        if known is not document and known != document:
            changes[path_of(id)] = render_document(document)
    return dict(sorted(changes.items()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
