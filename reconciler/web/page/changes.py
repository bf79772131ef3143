"""The page's forms that change the spec: what they hold, and what of it the API is asked for. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconciler.spec.model import Node, Project
from reconciler.web.page.form_text import labels_of, lines_of
from reconciler.web.page.node_list import Entry, changed_entries
from reconciler.web.refusals import RequestRefused

Form = Mapping[str, str]

ADD: Final = ("POST", "/api/sync/nodes")
CHANGE: Final = ("PUT", "/api/sync/nodes/{name}")
REMOVE: Final = ("DELETE", "/api/sync/nodes/{name}")
SETTINGS: Final = ("PUT", "/api/sync/projects/{name}/sync")


@dataclass(frozen=True, slots=True)
class Change:
    """One call of the API. `title` says what it does, `section` where on the page that is seen."""

    at: tuple[str, str]
    title: str
    section: str
    path: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a project's sync, as a form has it."""

    name: str
    label: str
    kind: str
    """`check`, `choice`, `number`, `text` or `lines`."""
    value: str
    choices: tuple[str, ...] = ()


_FIELDS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    ("enabled", "Synced", "check", ()),
    ("on_drift", "On drift", "choice", ("heal", "report")),
    ("on_local_edit", "Where a file was edited there", "choice", ("overwrite", "keep", "backup")),
    ("on_unreachable", "Where a node is away", "choice", ("skip", "block")),
    ("durability", "Durability", "choice", ("none", "commit", "paced")),
    ("compression", "Compression", "choice", ("auto", "on", "off")),
    ("max_parallel_nodes", "Nodes at a time", "number", ()),
    ("max_delete", "At most this share is deleted at once", "text", ()),
    ("delete_foreign", "Delete what others put there", "check", ()),
    ("ignore_permissions", "Leave permissions alone", "check", ()),
    ("owners", "Whose the files are there", "choice", ("names", "none")),
    ("ignore_defaults", "Leave out .git, runtime and tmp", "check", ()),
    ("ignore_patterns", "Leave out, one pattern a line", "lines", ()),
    ("ignore_file", "File with more patterns", "text", ()),
)


_OF_DIRECTORIES: Final = frozenset({"owners"})
"""What a project with a repository may not have."""


def sync_fields(project: Project) -> tuple[Field, ...]:
    return tuple(
        Field(name, label, kind, _shown(name, getattr(project.sync, name)), choices)
        for name, label, kind, choices in _FIELDS
        if project.source is not None or name not in _OF_DIRECTORIES
    )


def _shown(name: str, value: object) -> str:
    if name == "max_delete":
        return f"{float(str(value)) * 100:g}%"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, tuple):
        return "\n".join(value)
    return "" if value is None else str(value)


def settings_change(project: Project, entries: Sequence[Entry], form: Form) -> Change:
    """Only what is another than before, so that defaults stay defaults. `entries`: its nodes, as the file has
    them. Raises RequestRefused."""
    changed: dict[str, Any] = {}
    for each in sync_fields(project):
        given = _clean(each.kind, form.get(each.name, ""))
        if given != each.value:
            changed[each.name] = _meant(each, given)
    if (nodes := changed_entries(entries, form)) is not None:
        changed["nodes"] = nodes
    if not changed:
        raise RequestRefused(400, "nothing in the form is another than before")
    return Change(
        SETTINGS, f"Change how {project.id} is synced", "projects", {"name": project.id}, {"sync": changed}
    )


def _clean(kind: str, text: str) -> str:
    return "\n".join(lines_of(text)) if kind == "lines" else text.strip()


def _meant(field: Field, text: str) -> object:
    match field.kind:
        case "check":
            return bool(text)
        case "number":
            if not (text.isascii() and text.isdecimal()):
                raise RequestRefused(400, f"{field.label}: a whole number is needed")
            return int(text)
        case "lines":
            return lines_of(text) or None
    return text or None


def node_change(known: Node | None, form: Form) -> Change:
    """A new node, or another name, labels or pin for one that is known. Raises RequestRefused."""
    fields: dict[str, Any] = {
        "name": form.get("title", "").strip(),
        "labels": labels_of(form.get("labels", "")),
        "fingerprint": form.get("fingerprint", "").strip().lower(),
    }
    if known is None:
        node = form.get("name", "").strip()
        body = {"node": node, **fields, "primaries": lines_of(form.get("primaries", ""))}
        return Change(ADD, f"Add the node {node}", "nodes", {}, body)
    before = {"name": known.name, "labels": dict(known.labels), "fingerprint": known.fingerprint or ""}
    changed = {key: value for key, value in fields.items() if value != before[key]}
    if not changed:
        raise RequestRefused(400, "nothing in the form is another than before")
    return Change(CHANGE, f"Change the node {known.id}", "nodes", {"name": known.id}, changed)


def node_removal(name: str) -> Change:
    return Change(REMOVE, f"Take the node {name} out of the spec", "nodes", {"name": name}, {})


@dataclass(frozen=True, slots=True)
class DiffLine:
    text: str
    tone: str
    """`plus`, `minus`, `head` or nothing."""


def diff_lines(diff: str) -> tuple[DiffLine, ...]:
    return tuple(DiffLine(line, _tone(line)) for line in diff.splitlines())


def _tone(line: str) -> str:
    if line.startswith(("+++", "---", "@@", "diff ", "index ")):
        return "head"
    return {"+": "plus", "-": "minus"}.get(line[:1], "")
