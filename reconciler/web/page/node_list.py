"""The list of nodes that a project goes to, as a form has it: a row for each entry, and empty ones. Pure.

What a row does not change stays in the spec as it is written there, whatever else the entry says.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from reconciler.spec.model import Node
from reconciler.web.page.form_text import labels_of, labels_text, lines_of
from reconciler.web.refusals import RequestRefused

Form = Mapping[str, str]
Entry = Mapping[str, Any]
"""One entry of `sync.nodes`, as the file has it."""

STRATEGIES: Final = ("mirror", "overlay", "release")

MAX_ROWS: Final = 100
"""Entries of one list that a form takes; a longer one is edited in the file, and labels make it short."""

EMPTY_ROWS: Final = 2
"""Rows for new entries."""

SEEN: Final = "nodes-seen"
"""The field with the digest of the list that the form was made of."""


@dataclass(frozen=True, slots=True)
class Row:
    """`node` or `labels`: where `path` is. Everything as text; what is empty is not said by the entry."""

    number: int
    node: str = ""
    labels: str = ""
    path: str = ""
    strategy: str = ""
    keep: str = ""
    include: str = ""
    exclude: str = ""
    meant: tuple[str, ...] = ()
    """The nodes that the labels choose now."""

    @property
    def is_new(self) -> bool:
        return not (self.node or self.labels or self.path)

    @property
    def has_more(self) -> bool:
        return bool(self.strategy or self.keep or self.include or self.exclude)


def rows_of(entries: Sequence[Entry], nodes: Mapping[str, Node]) -> tuple[Row, ...]:
    """One for each entry, and some to fill in; none where there are too many for a form."""
    if len(entries) > MAX_ROWS:
        return ()
    named = {str(entry["node_id"]) for entry in entries if "node_id" in entry}
    rows = [_row(number, entry, named, nodes) for number, entry in enumerate(entries)]
    return (*rows, *(Row(number) for number in range(len(rows), len(rows) + EMPTY_ROWS)))


def _row(number: int, entry: Entry, named: set[str], nodes: Mapping[str, Node]) -> Row:
    labels: Mapping[str, Any] = entry.get("labels") or {}
    meant = [
        node.id
        for node in nodes.values()
        if labels and node.id not in named and labels.items() <= node.labels.items()
    ]
    return Row(
        number=number,
        node=str(entry.get("node_id") or ""),
        labels=labels_text(labels),
        path=str(entry.get("target_path") or ""),
        strategy=str(entry.get("strategy") or ""),
        keep=str(entry.get("keep") or ""),
        include="\n".join(map(str, entry.get("include") or ())),
        exclude="\n".join(map(str, entry.get("exclude") or ())),
        meant=tuple(sorted(meant)),
    )


def digest(entries: Sequence[Entry]) -> str:
    """Of a list, so that a form is only taken for the very list that it was made of."""
    return hashlib.sha256(msgspec.json.encode(list(entries))).hexdigest()[:32]


def changed_entries(entries: Sequence[Entry], form: Form) -> list[dict[str, Any]] | None:
    """The list as the form has it; None where it is the same. Raises RequestRefused."""
    if SEEN not in form:
        return None
    if form[SEEN] != digest(entries):
        raise RequestRefused(409, "the project's nodes were changed since; load the form again")
    if len(entries) > MAX_ROWS:
        return None
    wanted: list[dict[str, Any]] = []
    for number in _rows_in(form):
        given = {name: _given(form, number, name) for name in _KEYS}
        if form.get(f"nodes-{number}-remove") or not any(given.values()):
            continue
        wanted.append(_entry(number, entries[number] if number < len(entries) else {}, given))
    return None if wanted == [dict(entry) for entry in entries] else wanted


_KEYS: Final = {
    "node": "node_id",
    "labels": "labels",
    "path": "target_path",
    "strategy": "strategy",
    "keep": "keep",
    "include": "include",
    "exclude": "exclude",
}
"""By the name of a field, the key that the spec has."""
_LINES: Final = frozenset({"labels", "include", "exclude"})


def _rows_in(form: Form) -> range:
    numbers = [
        int(number)
        for number in (name.split("-")[1] for name in form if name.startswith("nodes-") and name != SEEN)
        if number.isascii() and number.isdecimal() and len(number) < 4
    ]
    return range(min(max(numbers, default=-1) + 1, MAX_ROWS + EMPTY_ROWS))


def _given(form: Form, number: int, name: str) -> str:
    text = form.get(f"nodes-{number}-{name}", "")
    return "\n".join(lines_of(text)) if name in _LINES else text.strip()


def _entry(number: int, before: Entry, given: Mapping[str, str]) -> dict[str, Any]:
    where = f"node {number + 1}"
    if bool(given["node"]) == bool(given["labels"]):
        raise RequestRefused(400, f"{where}: name a node or labels, and not both")
    if not given["path"]:
        raise RequestRefused(400, f"{where}: it needs a directory on the node")
    shown = _row(number, before, set(), {})
    made = dict(before)
    for name, key in _KEYS.items():
        if given[name] == getattr(shown, name):
            continue
        made.pop(key, None)
        if given[name]:
            made[key] = _meant(where, name, given[name])
    return made


def _meant(where: str, name: str, text: str) -> object:
    match name:
        case "labels":
            return labels_of(text)
        case "include" | "exclude":
            return lines_of(text)
        case "keep":
            if not (text.isascii() and text.isdecimal()):
                raise RequestRefused(400, f"{where}: how many releases are kept is a whole number")
            return int(text)
        case "strategy":
            if text not in STRATEGIES:
                raise RequestRefused(400, f"{where}: there is no strategy {text!r}")
    return text
