"""Changes to a spec that trueup makes for people: what is to be said, in which file, whether it may be. Pure.

A change takes the files of a spec and gives those that differ. How they are written, so that comments,
order and layout of everything else stay, is `spec/rewrite.py`'s.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.errors import Problem, SpecInvalid, TrueupError
from reconciler.spec.load import SPEC_FILE, load
from reconciler.spec.rewrite import read_document, rewritten

Files = Mapping[str, bytes]

_INDEX: Final = re.compile(r"\[\d+\]")

MAX_DIFF: Final = 64 * 1024
"""Characters of a diff that is shown."""


class EditRefused(TrueupError):
    """A change of the spec that cannot be; `status` is HTTP's."""

    reason = "EditRefused"

    def __init__(self, message: str, *, status: int = 409, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: what its commit says, and the files that it makes of those that are there."""

    message: str
    apply: Callable[[Files], dict[str, bytes]]


def edited(files: Files, edit: Edit) -> dict[str, bytes]:
    """The files that differ afterwards. Raises EditRefused, SettingsError, and SpecInvalid where the spec is
    unusable or gets a problem that it has not yet."""
    before = load(files)
    if before.spec is None:
        raise SpecInvalid(list(before.problems))
    changed = {path: content for path, content in edit.apply(files).items() if files.get(path) != content}
    known, added = Counter(_what(problem) for problem in before.problems), []
    for problem in load({**files, **changed}).problems:
        if known[_what(problem)]:
            known[_what(problem)] -= 1
        else:
            added.append(problem)
    if added:
        raise SpecInvalid(added)
    return changed


def _what(problem: Problem) -> tuple[str, str]:
    """What is wrong, and where: not what to do, as names to choose from may be others after a change, nor at
    which place of a list, as entries before it may come and go."""
    return _INDEX.sub("[]", problem.where), problem.message.partition("; ")[0]


def diff_of(files: Files, changed: Files) -> str:
    """What changes, as `git diff` shows it, with an end where that is too long."""
    lines: list[str] = []
    for path in sorted(changed):
        old, new = (side.get(path, b"").decode("utf-8", "replace") for side in (files, changed))
        for line in difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
        ):
            lines.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    whole = "".join(lines)
    return whole if len(whole) <= MAX_DIFF else f"{whole[:MAX_DIFF]}\n… and more\n"


# --- nodes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeFields:
    """What a node says beside its token. None: not given; of `pin` and `display` an empty text is none."""

    labels: Mapping[str, str] | None = None
    display: str | None = None
    pin: str | None = None

    def on(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        given = {"name": self.display, "labels": self.labels, "fingerprint": self.pin}
        kept = {key: value for key, value in entry.items() if given.get(key) is None}
        return {**{key: value for key, value in given.items() if value}, **kept}


def add_node(node: str, token_key: str, fields: NodeFields) -> Edit:
    def apply(files: Files) -> dict[str, bytes]:
        if _file_of(files, "nodes", node) is not None:
            raise EditRefused(
                f"the spec has a node {node} already",
                hint="choose another name, or give it a new token with `trueup node rotate-token`",
            )
        path = _file_for_nodes(files)
        data = _document(files, path)
        nodes = dict(data.get("nodes") or {})
        nodes[node] = fields.on({"token_key": token_key})
        return {path: rewritten(path, files[path], {**data, "nodes": nodes})}

    return Edit(f"Add node {node}", apply)


def change_node(node: str, fields: NodeFields) -> Edit:
    return Edit(f"Change node {node}", lambda files: _with_entry(files, node, fields.on))


def rotate_token(node: str, token_key: str) -> Edit:
    return Edit(
        f"Rotate the token of {node}",
        lambda files: _with_entry(files, node, lambda entry: {**entry, "token_key": token_key}),
    )


def remove_node(node: str) -> Edit:
    return Edit(f"Remove node {node}", lambda files: _with_entry(files, node, lambda _entry: None))


def check_new_node(node: str, token_key: str, fields: NodeFields) -> None:
    """Refuse a name or a label that no spec may have, before anything is looked up or told."""
    entry = fields.on({"token_key": token_key})
    alone = load({SPEC_FILE: rewritten(SPEC_FILE, b"version: 1\n", {"version": 1, "nodes": {node: entry}})})
    if alone.problems:
        said = "; ".join(problem.message for problem in alone.problems)
        raise EditRefused(f"node {node!r} cannot be added: {said}", status=422)


def node_line(node: str, token_key: str, fields: NodeFields) -> str:
    """The line for the spec, under `nodes:`, where somebody else has to put it there."""
    lone = rewritten(SPEC_FILE, b"", {node: fields.on({"token_key": token_key})})
    return lone.decode().rstrip("\n")


def _with_entry(
    files: Files, node: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
) -> dict[str, bytes]:
    path = _file_of(files, "nodes", node)
    if path is None:
        raise _unknown("node", node, files, "nodes")
    data = _document(files, path)
    nodes = dict(data["nodes"])
    entry = change(nodes[node] if isinstance(nodes[node], Mapping) else {})
    nodes = {name: value for name, value in nodes.items() if name != node} | (
        {} if entry is None else {node: entry}
    )
    return {path: rewritten(path, files[path], {**data, "nodes": nodes})}


# --- projects ----------------------------------------------------------------------------------


def change_sync(project: str, settings: Mapping[str, Any]) -> Edit:
    """Sets these of a project's `sync` settings, under the names that the spec has; None takes one out."""

    def apply(files: Files) -> dict[str, bytes]:
        path = _file_of(files, "projects", project)
        if path is None:
            raise _unknown("project", project, files, "projects")
        data = _document(files, path)
        entry = data["projects"][project]
        if not isinstance(entry, Mapping):
            raise EditRefused(f"the project {project} is not a map in {path}", hint="edit the file by hand")
        old = entry.get("sync") or {}
        sync = {key: value for key, value in {**old, **settings}.items() if value is not None}
        projects = {**data["projects"], project: {**entry, "sync": sync}}
        return {path: rewritten(path, files[path], {**data, "projects": projects})}

    return Edit(f"Change how {project} is synced", apply)


def node_entries(files: Files, project: str) -> tuple[Mapping[str, Any], ...]:
    """The list of nodes that a project goes to, as its file has it."""
    path = _file_of(files, "projects", project)
    if path is None:
        raise _unknown("project", project, files, "projects")
    entry = _document(files, path)["projects"][project]
    sync = entry.get("sync") if isinstance(entry, Mapping) else None
    listed = sync.get("nodes") if isinstance(sync, Mapping) else None
    return tuple(each for each in listed if isinstance(each, Mapping)) if isinstance(listed, list) else ()


# --- files -------------------------------------------------------------------------------------


def _document(files: Files, path: str) -> dict[str, Any]:
    data = read_document(path, files[path])
    return dict(data) if isinstance(data, Mapping) else {}


def _section(files: Files, path: str, section: str) -> Mapping[str, Any] | None:
    found = _document(files, path).get(section)
    return found if isinstance(found, Mapping) else None


def _file_of(files: Files, section: str, name: str) -> str | None:
    """The file in which something is defined."""
    return next((path for path in sorted(files) if name in (_section(files, path, section) or {})), None)


def _file_for_nodes(files: Files) -> str:
    """Where a new node goes: beside those in the root file, else to the first file that has any."""
    if not _section(files, SPEC_FILE, "nodes"):
        for path in sorted(files):
            if _section(files, path, "nodes"):
                return path
    return SPEC_FILE


def _unknown(what: str, name: str, files: Files, section: str) -> EditRefused:
    names = sorted({name for path in files for name in (_section(files, path, section) or {})})
    near = difflib.get_close_matches(name, names, 1)
    listed = ", ".join(names[:12])
    return EditRefused(
        f"the spec has no {what} {name!r}",
        status=404,
        hint=f"did you mean {near[0]}?" if near else f"it has {listed}" if listed else "it has none",
    )
