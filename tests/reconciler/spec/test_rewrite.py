"""A file that is rewritten says what was wanted, and all the rest stands as its author wrote it."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import SettingsError
from reconciler.spec.rewrite import read_document, rewritten, same, scalar

SPEC = """\
# Ours.
version: 1   # the format

projects:
  # the site
  site:
    repository: app      # the code
    sync:
      on_drift: heal     # mends itself
      ignore_patterns: ["*.log",   "node_modules/**"]
      nodes:
        # the old one
        - {node_id: web-1, target_path: /srv/site}   # rack 1
        # the new one
        - node_id: web-2
          target_path: /srv/site
      retry: {attempts: 5, # often
              backoff: 1s}
  other: {repository: app, branch: main, sync: {nodes: [{node_id: web-1, target_path: /srv/o}]}}

nodes:
    web-1: {token_key: "ed25519:AAAA"}  # in the cellar
    web-2:
        labels:
            group: web
        token_key: "ed25519:BBBB"
"""


def wanted(change: Any, text: str = SPEC) -> str:
    """The text after a change of its data, which it has to say."""
    data: Any = yaml.safe_load(text)
    change(data)
    result = rewritten("trueup.yaml", text.encode(), data).decode()
    assert yaml.safe_load(result) == data
    return result


def lines_that_changed(result: str, text: str = SPEC) -> tuple[list[str], list[str]]:
    old, new = text.splitlines(), result.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_what_says_the_same_stays_byte_for_byte() -> None:
    assert wanted(lambda data: None) == SPEC


def test_a_setting_is_changed_added_and_taken_out() -> None:
    def change(data: Any) -> None:
        sync = data["projects"]["site"]["sync"]
        sync["on_drift"] = "report"
        sync["bandwidth"] = "50MiB"
        del sync["retry"]["backoff"]
        sync["ignore_patterns"].append("tmp/**")

    gone, new = lines_that_changed(wanted(change))
    assert gone == [
        "      on_drift: heal     # mends itself",
        '      ignore_patterns: ["*.log",   "node_modules/**"]',
        "      retry: {attempts: 5, # often",
        "              backoff: 1s}",
    ]
    assert new == [
        "      on_drift: report     # mends itself",
        '      ignore_patterns: ["*.log",   "node_modules/**", "tmp/**"]',
        "      retry: {attempts: 5}",
        "      bandwidth: 50MiB",
    ]


def test_entries_of_a_list_keep_their_comments() -> None:
    def change(data: Any) -> None:
        nodes = data["projects"]["site"]["sync"]["nodes"]
        nodes[:] = [nodes[1], {"node_id": "web-3", "target_path": "/srv/site"}]

    gone, new = lines_that_changed(wanted(change))
    assert gone == ["        - {node_id: web-1, target_path: /srv/site}   # rack 1"]
    assert new == ["        - {node_id: web-3, target_path: /srv/site}"]


def test_a_node_goes_with_its_line_alone() -> None:
    gone, new = lines_that_changed(wanted(lambda data: data["nodes"].pop("web-1")))
    assert (gone, new) == (['    web-1: {token_key: "ed25519:AAAA"}  # in the cellar'], [])
    gone, new = lines_that_changed(wanted(lambda data: data["nodes"].pop("web-2")))
    assert len(gone) == 4
    assert new == []


def test_the_last_entry_leaves_an_empty_map() -> None:
    result = wanted(lambda data: data["nodes"].clear())
    assert result.endswith("\nnodes: {}\n")


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nnodes:\n",
        "version: 1\nnodes: # none\nprojects: {}\n",
        "nodes: {}  # none yet\nversion: 1\n",
        "version: 1\n",
        "{version: 1}",
        "version: 1",
        "nodes: {old: {token_key: x}}\nversion: 1\n",
        "version: 1\r\nnodes:\r\n  old: {token_key: x}\r\n",
    ],
)
def test_a_node_is_added_wherever_there_is_room(text: str) -> None:
    entry = {"labels": {"group": "web"}, "token_key": "ed25519:CCCC"}

    def change(data: Any) -> None:
        data["nodes"] = {**(data.get("nodes") or {}), "web-9": entry}

    assert all(line.partition("#")[2] in wanted(change, text) for line in text.splitlines())


SHARED = "base: &base {a: 1, b: 2}\none: *base\ntwo: {<<: *base, c: 3}\n"


def test_what_an_alias_stands_for_is_written_out_where_it_differs() -> None:
    def change(data: Any) -> None:
        data["one"] = {"a": 1, "b": 5}
        data["two"] = {"a": 7, "b": 2, "c": 3}

    assert wanted(change, SHARED) == (
        "base: &base {a: 1, b: 2}\none: {a: 1, b: 5}\ntwo: {<<: *base, c: 3, a: 7}\n"
    )


def test_what_cannot_be_said_changes_nothing() -> None:
    data: Any = yaml.safe_load(SHARED)
    del data["two"]["a"]
    with pytest.raises(SettingsError, match=r"trueup.yaml is written in a way .* edit the file by hand"):
        rewritten("trueup.yaml", SHARED.encode(), data)
    with pytest.raises(SettingsError, match="a stands there twice, again in line 2"):
        rewritten("trueup.yaml", b"a: 1\na: 2\n", {"a": 3})


TEXTS = st.text(max_size=8) | st.sampled_from(["yes", "012", "1:30", "#x", "a: b", "null", "é", "x\ny", "5m"])
KEYS = TEXTS.filter(lambda key: key and key.isprintable())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def readable(value: Any) -> bool:
    """What a spec may hold: no NUL, no half characters, no key that YAML takes for a merge."""
    text = repr(value)
    return "'<<'" not in text and "\\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS.filter(readable), DOCUMENTS.filter(readable), st.booleans() | st.none())
def test_any_document_becomes_any_other(old: Any, new: Any, flow: bool | None) -> None:
    text = yaml.safe_dump(old, default_flow_style=flow).encode()
    before = read_document("a.yaml", text)
    result = rewritten("a.yaml", text, new)
    assert same(read_document("a.yaml", result), new)
    assert rewritten("a.yaml", text, before) == text
    # There and back: what was said before can be said again.
    assert same(read_document("a.yaml", rewritten("a.yaml", result, before)), before)


TYPED = ["no", "on", "1", "1e3", "0x1f", "1_000", ".5", "~", "2024-01-01", "a: b", "", "nan"]


@pytest.mark.parametrize("text", TYPED)
def test_a_text_that_a_reader_could_take_for_something_else_is_quoted(text: str) -> None:
    assert scalar(text) == f'"{text}"'
