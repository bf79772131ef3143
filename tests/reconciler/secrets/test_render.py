"""Rendered files give every reader the values unchanged, or are refused."""

import io
import json
import subprocess
from collections.abc import Mapping
from typing import Literal

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.secrets import dotenv
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.merge import merge
from reconciler.secrets.render import render
from reconciler.spec.model import RenderedFile

# What `merge` lets through: any text without NUL and lone surrogates.
values = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
awkward = st.text(alphabet="ab \t\n\r\\'\"$`#={}!*~;&|<>()é", max_size=12)
names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
_PRINT_VARIABLES = r"""eval "$(cat)"; for name; do eval "printf '%s\\0' \"\$$name\""; done"""

environments = st.dictionaries(names, values | awkward, max_size=4)


def rendered(variables: Mapping[str, str], form: Literal["dotenv", "json", "yaml"] | None) -> bytes:
    merged = merge(env=variables, secrets=[], environ={})
    return render(RenderedFile(path=".env", format=form), merged)


def is_refused(value: str) -> bool:
    """What the format's own description says: `$` or a backtick, and something that needs double quotes."""
    return any(one in value for one in "'\\\r") and any(one in value for one in "$`")


@given(environments)
@example(
    {"A": "it's", "B": "a\\", "C": 'a\\"b', "D": " x ", "E": "#x", "F": "a\n\nb\n", "G": "\r\n", "H": ""}
)
def test_python_dotenv_reads_what_was_meant(variables: dict[str, str]) -> None:
    if any(is_refused(value) for value in variables.values()):
        with pytest.raises(VariableUnusable, match="no dotenv line gives it to every reader"):
            rendered(variables, "dotenv")
        return
    text = rendered(variables, "dotenv").decode()
    assert dotenv.parse(text) == variables
    # As from a file, where Python makes one kind of line end of all.
    as_file = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    assert dict(dotenv_values(stream=as_file, interpolate=False)) == variables


@settings(max_examples=60, deadline=None)
@given(st.lists(awkward, max_size=12))
@example(["it's", "a\\", 'a\\"b', " x ", "#x", "a\n\nb\n", "$(echo x)", "`echo x`", "${HOME}", "!x", "~", ""])
def test_a_shell_reads_the_same(found: list[str]) -> None:
    usable = [value for value in found if not is_refused(value) and "\r" not in value]
    variables = {f"V{number:02}": value for number, value in enumerate(usable)}
    shell = subprocess.run(
        ["/bin/sh", "-c", _PRINT_VARIABLES, "sh", *variables],
        input=rendered(variables, "dotenv"),
        capture_output=True,
        env={"HOME": "/never"},
        timeout=120,
        check=True,
    )
    assert shell.stdout.decode().split("\0")[:-1] == usable
    assert shell.stderr == b""


@given(environments)
def test_json_and_yaml_give_texts_back(variables: dict[str, str]) -> None:
    assert json.loads(rendered(variables, "json")) == variables
    assert (yaml.safe_load(rendered(variables, "yaml")) or {}) == variables


def test_the_forms() -> None:
    variables = {"B": "two words", "A": "no", "D": 'say "hi", it\'s', "C": "a\nb"}
    assert rendered(variables, "dotenv") == b"A=no\nB='two words'\nC='a\nb'\nD=\"say \\\"hi\\\", it's\"\n"
    assert rendered(variables, None) == rendered(variables, "dotenv")
    assert rendered({"A": "no", "B": "ü"}, "yaml") == '"A": "no"\n"B": "ü"\n'.encode()
    assert rendered({"B": "ü", "A": "1"}, "json") == '{\n  "A": "1",\n  "B": "ü"\n}\n'.encode()


def test_a_refusal_names_the_variable_and_a_way_out() -> None:
    with pytest.raises(VariableUnusable, match=r"^PASSWORD has .*; use format: json or yaml for this file$"):
        rendered({"PASSWORD": "it's $5"}, "dotenv")
    assert json.loads(rendered({"PASSWORD": "it's $5"}, "json")) == {"PASSWORD": "it's $5"}
