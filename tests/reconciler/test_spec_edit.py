"""Adding a node to a spec keeps everything else as its author wrote it."""

import pytest
import yaml

from reconciler.errors import SettingsError
from reconciler.spec_edit import insert_node, node_entry

ENTRY = node_entry("ed25519:AAAA", {"group": "web", "rack": "2"})

SPECS = {
    "no section": "version: 1  # the format\n",
    "empty section": "version: 1\nnodes:\nprojects: {}\n",
    "empty section at the end": "version: 1\nnodes:",
    "empty flow": "version: 1\nnodes: {}  # none yet\nprojects: {}\n",
    "block": "version: 1\nnodes:\n  # our first\n  old: {token_key: x}\n\nprojects: {}\n",
    "block, other indentation": "nodes:\n      old:\n        token_key: x\nversion: 1\n",
    "flow": "version: 1\nnodes: {old: {token_key: x}}\nprojects: {}\n",
}


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS.keys())
def test_the_node_is_added_and_nothing_else_changes(text: str) -> None:
    edited = insert_node(text, "web-1", ENTRY)
    before, after = yaml.safe_load(text), yaml.safe_load(edited)
    added = after["nodes"].pop("web-1")
    assert added == {"labels": {"group": "web", "rack": "2"}, "token_key": "ed25519:AAAA"}
    assert (after.pop("nodes") or {}) == (before.pop("nodes", None) or {})
    assert after == before
    for line in text.splitlines():
        if "#" in line:
            assert line.partition("#")[2] in edited


def test_a_node_of_that_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="has a node old already"):
        insert_node(SPECS["block"], "old", ENTRY)
