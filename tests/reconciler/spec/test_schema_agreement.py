"""Our keywords tell errors in other words than the plain validator; they accept exactly what it accepts."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.ignore import Ignore
from reconciler.paths import CommitPaths, digest_by_pattern
from reconciler.spec.load import SPEC_FILE, load
from reconciler.spec.schema import spec_schema, violations
from tests.reconciler.spec.test_examples import example_files

PLAIN = Draft202012Validator(spec_schema())


def whole_example() -> dict[str, Any]:
    """The full example and its included files as one plain document."""
    merged: dict[str, Any] = {}
    for content in example_files("full").values():
        part = yaml.load(content, Loader=yaml.BaseLoader)
        merged = {**part, **merged}
    found: dict[str, Any] = typed(merged)
    return found


def typed(value: Any) -> Any:
    """BaseLoader's texts with the numbers, booleans and nulls that the example means."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    words = {"true": True, "false": False, "null": None, "": None}
    if value in words:
        return words[value]
    return int(value) if value.isdigit() and not value.startswith("0") else value


EXAMPLE: Any = whole_example()


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, each in value.items():
            found += paths(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            found += paths(each, (*path, index))
    return found


PATHS = paths(EXAMPLE)
SPOILERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2000),
    st.floats(0, 5),
    st.sampled_from(
        ["", "x", "5m", "0s", "50%", "a b", "../x", "/srv/x", "x\n", "5m\n", "UPPER", "https://x", "mirror"]
    ),
    st.sampled_from(
        ["infisical", "env_file", "github_actions", "invoke", "compose", "agent", "dokploy", "manual"]
    ),
    st.just([]),
    st.just({}),
    st.just({"env": "A"}),
    st.just({"secret": "a/B"}),
    st.just(["a", "a"]),
    st.just({"kind": "manual"}),
    st.just({"kind": "environ", "keys": ["A"]}),
    st.just({"http": "https://x"}),
)


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    document: Any = copy.deepcopy(EXAMPLE)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(PATHS))
        parent: Any = document
        for step in path[:-1]:
            parent = parent[step] if isinstance(parent, dict | list) and _has(parent, step) else None
        if parent is None or not _has(parent, path[-1]):
            continue
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            parent[path[-1]] = draw(SPOILERS)
        elif action == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["extra", "kind", "env", "timeout", "a b", "name"]))] = draw(SPOILERS)
        else:
            parent.append(draw(SPOILERS))
    return document


def _has(parent: Any, step: Any) -> bool:
    if isinstance(parent, dict):
        return step in parent
    return isinstance(parent, list) and isinstance(step, int) and step < len(parent)


def trailing_break(value: Any) -> bool:
    """Python's `$` also matches before a last line break, so the plain validator lets one through."""
    if isinstance(value, dict):
        return any(trailing_break(key) or trailing_break(each) for key, each in value.items())
    if isinstance(value, list):
        return any(trailing_break(each) for each in value)
    return isinstance(value, str) and value.endswith("\n")


@settings(max_examples=200, deadline=None)
@given(spoilt())
def test_what_we_accept_is_what_the_plain_validator_accepts(document: Any) -> None:
    ours = list(violations(document, spec_schema()))
    if not trailing_break(document):
        assert (ours == []) == PLAIN.is_valid(document), ours
    assert len(ours) == len(set(ours))


@settings(max_examples=200, deadline=None)
@given(spoilt())
def test_a_spoilt_spec_is_told_and_never_raises(document: Any) -> None:
    document.pop("include", None)
    result = load({SPEC_FILE: yaml.safe_dump(document, allow_unicode=True).encode()})
    assert result.spec is not None or result.problems
    assert bool(result.frozen) == any(problem.resource for problem in result.problems)


def choices(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        if "enum" in schema:
            yield schema
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else ():
        yield from choices(part)


def test_each_choice_says_that_it_is_a_text() -> None:
    """Ours judges a choice among texts alone, so another kind of value has to be refused by its type."""
    assert [each for each in choices(spec_schema()) if each.get("type") != "string"] == []


def test_the_example_itself_is_valid_for_both() -> None:
    assert PLAIN.is_valid(EXAMPLE)
    assert list(violations(EXAMPLE, spec_schema())) == []


# --- patterns ----------------------------------------------------------------------------------

LONG = 2**20
REPEATED = ("a", "/", ".", ":", "a:", "a/", "/a", "../", "@", "1s", "-", "@{", "/.", "\\", "\\a")


def patterns(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(patterns, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
    return own.union(*map(patterns, schema.values()))


@pytest.mark.timeout(300)
def test_no_text_makes_a_pattern_think_for_long() -> None:
    """It takes seconds; with a pattern whose time grows with the square of the text, half an hour."""
    for pattern in patterns(dict(spec_schema())):
        for unit in REPEATED:
            for start in ("", "ssh://"):
                text = (start + unit * LONG)[:LONG] + "\x01"
                list(violations(text, {"type": "string", "pattern": pattern, "x-echo": False}))


@given(st.text(alphabet="!/\\*[]ab-:& #", min_size=1, max_size=12))
@example("[b-a]")
@example("[[a]")
@example("[a&&b]")
@settings(max_examples=500)
def test_every_path_pattern_that_is_valid_can_be_used(pattern: str) -> None:
    if not list(violations(pattern, spec_schema()["$defs"]["pattern"])):
        Ignore([pattern])
        digest_by_pattern(CommitPaths(()), [pattern])


@pytest.mark.parametrize("owners", [None, True, 1, [], "both"])
def test_owners_that_are_no_choice_are_told(owners: Any) -> None:
    document = copy.deepcopy(EXAMPLE)
    document.pop("include", None)
    [name] = list(document["projects"])[:1]
    document["projects"][name]["sync"]["owners"] = owners
    result = load({SPEC_FILE: yaml.safe_dump(document, allow_unicode=True).encode()})
    assert any("owners" in str(problem) for problem in result.problems)
