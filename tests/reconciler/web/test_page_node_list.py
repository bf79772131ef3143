"""A project's list of nodes as a form has it: only what a person changed is another than before."""

from typing import Any

import pytest

from reconciler.spec.model import Node
from reconciler.web.page.node_list import EMPTY_ROWS, MAX_ROWS, SEEN, changed_entries, digest, rows_of
from reconciler.web.refusals import RequestRefused

NODES = {
    "web-1": Node(id="web-1", labels={"group": "web"}, token_key="x"),
    "web-2": Node(id="web-2", labels={"group": "web"}, token_key="x"),
    "db-1": Node(id="db-1", labels={"group": "db"}, token_key="x"),
}
ENTRIES: list[dict[str, Any]] = [
    {"node_id": "web-1", "target_path": "/srv/site", "strategy": "release", "keep": "5"},
    {"labels": {"group": "web"}, "target_path": "/srv/other", "exclude": ["*.map", ".git/**"]},
]


def form_of(entries: list[dict[str, Any]], **changed: str) -> dict[str, str]:
    """As a browser sends it: every field of every row."""
    form = {SEEN: digest(entries)}
    for row in rows_of(entries, NODES):
        for name in ("node", "labels", "path", "strategy", "keep", "include", "exclude"):
            form[f"nodes-{row.number}-{name}"] = getattr(row, name).replace("\n", "\r\n")
    return form | {f"nodes-{name.replace('_', '-')}": value for name, value in changed.items()}


def test_rows_say_what_the_entries_say_and_whom_labels_mean() -> None:
    first, second, *new = rows_of(ENTRIES, NODES)
    assert (first.node, first.path, first.strategy, first.keep) == ("web-1", "/srv/site", "release", "5")
    assert (second.labels, second.exclude, second.meant) == ("group=web", "*.map\n.git/**", ("web-2",))
    assert [row.is_new for row in new] == [True] * EMPTY_ROWS
    assert rows_of([{"node_id": "web-1", "target_path": "/x"}] * (MAX_ROWS + 1), NODES) == ()


def test_what_is_sent_back_as_it_came_changes_nothing() -> None:
    assert changed_entries(ENTRIES, form_of(ENTRIES)) is None
    assert changed_entries(ENTRIES, {}) is None


def test_only_what_was_changed_is_another() -> None:
    made = changed_entries(ENTRIES, form_of(ENTRIES, **{"0_path": "/srv/new", "1_exclude": ""}))
    # `keep` stays the text that the file has.
    assert made == [
        {**ENTRIES[0], "target_path": "/srv/new"},
        {"labels": {"group": "web"}, "target_path": "/srv/other"},
    ]
    added = {"2_labels": "group=db\r\nzone = a", "2_path": "/srv/db", "2_keep": "2", "0_remove": "yes"}
    made = changed_entries(ENTRIES, form_of(ENTRIES, **added))
    assert made == [ENTRIES[1], {"labels": {"group": "db", "zone": "a"}, "target_path": "/srv/db", "keep": 2}]
    assert changed_entries([], form_of([], **{"1_node": "db-1", "1_path": "/a"})) == [
        {"node_id": "db-1", "target_path": "/a"}
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"2_path": "/srv/x"}, "node 3: name a node or labels, and not both"),
        ({"0_labels": "group=web"}, "node 1: name a node or labels, and not both"),
        ({"0_path": ""}, "node 1: it needs a directory"),
        ({"0_keep": "many"}, "a whole number"),
        ({"1_strategy": "copy"}, "no strategy"),
        ({"1_labels": "web"}, "is not KEY=VALUE"),
    ],
    ids=["no node", "both", "no path", "keep", "strategy", "label"],
)
def test_what_cannot_be_is_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(RequestRefused, match=said):
        changed_entries(ENTRIES, form_of(ENTRIES, **changed))


def test_a_list_that_somebody_else_changed_is_not_overwritten() -> None:
    with pytest.raises(RequestRefused, match="changed since") as refused:
        changed_entries(ENTRIES[:1], form_of(ENTRIES))
    assert refused.value.status == 409
