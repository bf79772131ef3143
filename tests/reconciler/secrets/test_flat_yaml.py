"""Flat YAML: what it gives back, what it refuses, and that no message holds more of the file than a name."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets.dotenv import BadLine
from reconciler.secrets.flat_yaml import parse
from reconciler.spec.yaml_reader import LOADERS
from tests.canaries import MARKER, canary

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
STRANGE_BREAKS = "\x85\u2028\u2029"
both_parsers = pytest.mark.parametrize("loader", LOADERS, ids=["libyaml", "python"])
VALUE = canary("flat-yaml")


@both_parsers
@given(values=st.dictionaries(names, texts, max_size=5), style=st.sampled_from(["'", '"', "|", ">"]))
def test_texts_that_pyyaml_wrote(loader: type, values: dict[str, str], style: Any) -> None:
    assert parse(yaml.safe_dump(values, default_style=style), loader=loader) == values
    # As people write: quotes only where they are needed, and every character as it is.
    written = yaml.safe_dump(values, allow_unicode=True)
    if not any(character in written for character in STRANGE_BREAKS):
        assert parse(written, loader=loader) == values


@both_parsers
def test_plain_texts_are_taken_as_they_are_written(loader: type) -> None:
    text = "A: no\nB: 012\nC: 0x10\nD: 2001-01-01\nE: 1_000\nF: 1:30\nG: a b  # more\nI: 1e3\n'no': x\n"
    assert parse(text, loader=loader) == {
        "A": "no",
        "B": "012",
        "C": "0x10",
        "D": "2001-01-01",
        "E": "1_000",
        "F": "1:30",
        "G": "a b",
        "I": "1e3",
        "no": "x",
    }


@both_parsers
@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n", "--- {}\n...\n"])
def test_an_empty_file_has_no_values(loader: type, text: str) -> None:
    assert parse(text, loader=loader) == {}


BAD = [
    ("A: x\nPORT: 5432\n", 2, "PORT: a text is needed, not a number, a boolean or nothing; put it in quotes"),
    ("A: 1.5\n", 1, "A: a text is needed, not a number"),
    ("A: true\n", 1, "A: a text is needed, not a number, a boolean"),
    ("A: null\n", 1, "A: a text is needed, not a number, a boolean or nothing"),
    ("A:\n", 1, "A: a text is needed"),
    ("A: ~\n", 1, "A: a text is needed"),
    ("A: {{B: {}}}\n", 1, "A: a text is needed"),
    ("A:\n  B: {}\n", 2, "A: a text is needed"),
    ("A: [{}]\n", 1, "A: a text is needed"),
    ("A: !!str {}\n", 1, "A: a text without an anchor or a tag is needed"),
    ("A: !{} x\n", 1, "A: a text without an anchor or a tag is needed"),
    ("A: &here {}\n", 1, "A: a text without an anchor or a tag is needed"),
    ("A: *{}\n", 1, "A: a text is needed"),
    ("A: &x 'y'\nB: *x\n", 1, "A: a text without an anchor or a tag is needed"),
    ("&x A: {}\n", 1, "a name has letters, digits"),
    ("<<: {{A: {}}}\n", 1, "a name has letters, digits"),
    ("? [{}]\n: x\n", 1, "a text is needed"),
    ("{} x: y\n", 1, "a name has letters, digits"),
    ("A: x\nA: {}\n", 2, "A is there twice"),
    ("{}\n", 1, "one map of names to texts is needed"),
    ("- {}\n", 1, "one map of names to texts is needed"),
    ("!{} {{}}\n", 1, "one map of names to texts is needed"),
    ("A: x\n---\nB: {}\n", 2, "a second document"),
    ('A: "{}\\0"\n', 1, "A: a NUL or half a surrogate pair"),
    ("A: x\nB: '{}\n", 3, "not valid YAML"),
    ("A: x\n  {}: y\n", 2, "not valid YAML"),
    ("A: {}: y\n", 1, "not valid YAML"),
    ("A: @{}\n", 1, "not valid YAML"),
    ('A: "\\q{}"\n', 1, "not valid YAML"),
    ("A: {}\x01\n", 1, "not valid YAML"),
    ("A: x\nB: '{}\x85'\n", 2, "U+0085 may not stand in YAML"),
    ("A: {}\u2028x\n", 1, "U+2028 may not stand in YAML"),
    ("A: '{}' x\n", 1, "not valid YAML"),
]


@both_parsers
@pytest.mark.parametrize(("text", "line", "problem"), BAD)
def test_everything_else_is_refused(loader: type, text: str, line: int, problem: str) -> None:
    found = parse(text.format(VALUE), loader=loader)
    assert isinstance(found, BadLine), "it was read"
    assert found.problem.startswith(problem)
    # The two parsers may differ by a line in where they give up.
    assert abs(found.line - line) <= (1 if problem == "not valid YAML" else 0)
    assert MARKER not in found.problem


@both_parsers
def test_depth_and_aliases_are_not_followed(loader: type) -> None:
    for text in ("[" * 100_000, "{a: " * 100_000, "A: [" * 50_000, "- " * 100_000):
        assert isinstance(parse(text, loader=loader), BadLine)
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    assert isinstance(parse(bomb, loader=loader), BadLine)


@both_parsers
@given(text=st.text(alphabet="ab:{}[]&*!#|>'\"%@`- \n\t\\,?0~<", max_size=40) | st.text(max_size=40))
def test_nothing_makes_it_raise(loader: type, text: str) -> None:
    found = parse(text, loader=loader)
    assert isinstance(found, BadLine) or all(isinstance(value, str) for value in found.values())
