"""Bytes to data: what is refused before it can do harm, what stays a text, and positions."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Problem
from reconciler.spec.document import Map, Seq, mark_of
from reconciler.spec.yaml_reader import LOADERS, MAX_ALIASES, MAX_DEPTH, Budget, YamlFile, read_yaml

PARSERS = pytest.mark.parametrize("loader", LOADERS, ids=["c", "python"])


def data_of(text: str, loader: type = LOADERS[0]) -> Any:
    read = read_yaml("f.yaml", text.encode(), Budget(), loader=loader)
    assert isinstance(read, YamlFile), read
    return read.data


def refusal(content: bytes, loader: type = LOADERS[0]) -> str:
    read = read_yaml("f.yaml", content, Budget(), loader=loader)
    assert isinstance(read, Problem), read
    return str(read)


@PARSERS
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("012", "012"),
        ("0600", "0600"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e3", "1e3"),
        ("9" * 40, "9" * 40),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-1", -1),
        ("1.50", 1.5),
        ('"12"', "12"),
        ("'true'", "true"),
        ("|\n  12\n", "12\n"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says_or_is_a_text(written: str, meant: object, loader: type) -> None:
    found = data_of(f"key: {written}\n", loader)["key"]
    assert found == meant
    assert type(found) is type(meant)


def test_keys_are_texts_whatever_they_look_like() -> None:
    assert data_of("{1: a, true: b, on: c, 01: d}") == {"1": "a", "true": "b", "on": "c", "01": "d"}


@PARSERS
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"a: !!python/object/apply:os.system [x]",
            "f.yaml:1:4: the tag `tag:yaml.org,2002:python/object/apply:",
        ),
        (b"a: !secret x", "f.yaml:1:4: the tag `!secret` is not allowed"),
        (b"a: !!str x", "f.yaml:1:4: the tag"),
        (b"a: \xff", "f.yaml:1:4: not UTF-8; save the file as UTF-8"),
        (b"ok: 1\nk\xc3\xa9y: \xe9", "f.yaml:2:6: not UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: not UTF-8"),
        (b"a: \x00", "f.yaml:1:4: the character U+0000 may not stand in YAML"),
        (b"a: b\n\x1bc: d", "f.yaml:2:1: the character U+001B"),
        ("a: \u202ecba".encode(), "f.yaml:1:4: the character U+202E"),
        ("a: \u061ccba".encode(), "f.yaml:1:4: the character U+061C"),
        (b'a: "\\0"', "f.yaml:1:4: a NUL"),
        (b"a: *nowhere", "f.yaml:1:4: the alias `*nowhere` has no complete anchor before it"),
        (b"a: &a [*a]", "f.yaml:1:8: the alias `*a` has no complete anchor before it"),
        (b"a: &x 1\n*x : 2", "f.yaml:2:1: a key may not be an alias"),
        (b"[a]: 1", "f.yaml:1:1: a key must be a text"),
        (b"a: 1\n---\nb: 2", "f.yaml:2:1: a second document starts here"),
        (b"a:\n  <<: 1", "f.yaml:2:7: `<<` takes a map or a list of maps"),
        (b"a: [1, 2", "f.yaml:"),
        (b"a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed"),
        (b"a: 1\n\tb: 2", "f.yaml:2:1: not valid YAML: "),
        (b"a: @x", "f.yaml:1:4: not valid YAML: found character"),
        (b'a: "\\UFFFFFFFF"', "f.yaml:1:"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(content: bytes, expected: str, loader: type) -> None:
    message = refusal(content, loader)
    assert message.startswith(expected)
    assert "\n" not in message
    assert message.isprintable()


@PARSERS
@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"a:\n  b: 1\n c: 2", "; mend the indentation here or above (while"),
        (b"a: [1\nb: 2", "; separate with a comma, or close the bracket"),
    ],
)
def test_a_mistake_of_form_comes_with_advice(content: bytes, advice: str, loader: type) -> None:
    assert advice in refusal(content, loader)


@PARSERS
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "a:\n"])
def test_depth_ends_at_the_limit(opening: str, loader: type) -> None:
    def nested(levels: int) -> bytes:
        if opening == "[":
            return b"[" * levels + b"]" * levels
        if opening == "{a: ":
            return b"{a: " * levels + b"1" + b"}" * levels
        if opening == "- ":
            return b"- " * levels + b"x"
        return b"".join(b" " * level + b"a:\n" for level in range(levels))

    assert isinstance(read_yaml("f", nested(MAX_DEPTH), Budget(), loader=loader), YamlFile)
    assert f"deeper than {MAX_DEPTH} levels" in refusal(nested(MAX_DEPTH + 1), loader)
    assert f"deeper than {MAX_DEPTH} levels" in refusal(nested(2000), loader)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)
MERGES = "b0: &b0 {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\n"
MERGES += "list:\n" + "".join("- {<<: [" + ", ".join(["*b0"] * 20) + "]}\n" for _ in range(200))


@PARSERS
@pytest.mark.parametrize(
    ("bomb", "expected"),
    [
        (LAUGHS, "values with all aliases written out"),
        (MERGES, "values with all aliases written out"),
        ("a: &a 1\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]", f"more than {MAX_ALIASES} aliases"),
    ],
)
def test_bombs_are_refused(bomb: str, expected: str, loader: type) -> None:
    assert expected in refusal(bomb.encode(), loader)


BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from reconciler.spec.load import load
loaded = load({"trueup.yaml": eval(sys.argv[1])})
assert loaded.spec is None, loaded
print(*loaded.problems)
"""


@pytest.mark.parametrize(
    "expression",
    [
        "b'[' * 200_000",
        "b'{a: ' * 200_000",
        "b'- ' * 200_000",
        "b'? ' * 200_000",
        "b'&a ' * 200_000",
        "b'!' * 200_000",
        "b'a: [' + b'x, ' * 1_300_000 + b']'",
        "b'a: ' + b'\\'' * 3_999_999",
        "b'\"' + b'\\\\' * 4_000_000",
        "b'a: |\\n' + b' \\n' * 2_000_000",
        "b'x' * (5 << 20)",
        "b'a0: &a0 []\\n' + b''.join(b'a%d: &a%d [*a%d, *a%d]\\n' % (n, n, n-1, n-1) for n in range(1, 99))",
    ],
)
def test_hostile_bytes_end_neither_the_process_nor_its_memory(expression: str) -> None:
    """The exit code is looked at from outside: PyYAML's C composer dies of the first of these by a signal."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, expression], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("trueup.yaml:")


def test_merge_keys_lend_what_is_not_written_out() -> None:
    text = """
    one: &one {a: 1, b: 1}
    two: &two {b: 2, c: 2}
    both: {<<: [*one, *two], c: 3}
    under:
      <<: *one
      b: 4
    """
    read = data_of(textwrap.dedent(text))
    assert read["both"] == {"a": 1, "b": 1, "c": 3}
    assert read["under"] == {"a": 1, "b": 4}


def test_duplicate_keys_are_found_with_both_places() -> None:
    read = read_yaml("f", b"a: 1\nb:\n  - {c: 1}\n  - {c: 1, 'c': 2}\na: 3\n", Budget())
    assert isinstance(read, YamlFile)
    found = [
        (each.path, each.key, each.place.line, each.place.column, each.first_line) for each in read.duplicates
    ]
    assert found == [(("b", 1), "c", 4, 12, 4), ((), "a", 5, 1, 1)]


# --- positions ---------------------------------------------------------------------------------

NAMES = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=6)
TEXTS = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=12)
TREES = st.recursive(
    st.one_of(TEXTS, st.integers(-(10**9), 10**9), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=20,
)


def check_marks(value: Any, lines: list[str], path: tuple[str | int, ...], top: Any) -> None:
    if isinstance(value, Map):
        for key, each in value.items():
            mark = mark_of(top, (*path, key))
            assert mark is not None
            written = lines[mark.line - 1][mark.column - 1 :]
            assert key in written
            check_marks(each, lines, (*path, key), top)
    elif isinstance(value, Seq):
        for index, each in enumerate(value):
            mark = mark_of(top, (*path, index))
            assert mark is not None
            assert mark.line <= len(lines)
            if isinstance(each, int) and not isinstance(each, bool):
                assert lines[mark.line - 1][mark.column - 1 :].startswith(str(each))
            check_marks(each, lines, (*path, index), top)


@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=5), st.booleans())
def test_what_is_dumped_is_read_back_with_its_positions(tree: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True, width=10**6)
    read = data_of(text)
    assert read == tree
    check_marks(read, text.split("\n"), (), read)


@given(
    st.one_of(
        st.binary(max_size=200), st.text("abc:-[]{}&*!|>'\"%@#?,<~ \n\t0", max_size=120).map(str.encode)
    )
)
def test_any_bytes_are_data_or_a_problem(content: bytes) -> None:
    for loader in LOADERS:
        assert isinstance(read_yaml("f", content, Budget(), loader=loader), YamlFile | Problem)
