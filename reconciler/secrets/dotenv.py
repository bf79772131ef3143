"""The dotenv format: reading it as python-dotenv does, and writing what it and a shell read alike.

Reading: python-dotenv's own parser, without expansion: `${NAME}` in a value stays as it is written.

Writing (one `NAME=value` a line): a value of plain characters stands bare, so that readers without quoting
(`docker run --env-file`) take it too; else in single quotes where it has no `'`, `\\` and carriage return;
else in double quotes with `\\`, `"` and carriage return escaped. A value that needs double quotes and has
`$` or a backtick is refused: a shell would expand it, or run it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO

from dotenv.parser import parse_stream

from reconciler.secrets.errors import VariableUnusable

_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")


@dataclass(frozen=True, slots=True)
class BadLine:
    """The first line that cannot be read, counted from 1. Never holds the line itself."""

    line: int
    problem: str


def parse(text: str) -> dict[str, str] | BadLine:
    """Names and values, the last of a name wins. Gives a BadLine instead where anything is malformed."""
    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(text, newline="")):
        if binding.error:
            line = binding.original.line + _blank_lines(binding.original.string)
            return BadLine(line, "not of the form NAME=value, or a quote is not closed")
        if binding.key is None:
            continue
        if binding.value is None:
            line = binding.original.line + _blank_lines(binding.original.string)
            return BadLine(line, "a name without `=`; write NAME= for an empty value")
        values[binding.key] = binding.value
    return values


def _blank_lines(original: str) -> int:
    """Lines between where the parser began to read and where the statement stands."""
    return len(re.findall(r"\r\n|\n|\r", original[: len(original) - len(original.lstrip())]))


def quote(name: str, value: str) -> str:
    """The value as it stands after `NAME=`. Raises VariableUnusable for one that cannot be written safely.

    Single and double quotes may span lines. `name` is only for the error.
    """
    quoted = _quoted(value)
    if quoted is None:
        raise _unusable(name)
    return quoted


def _quoted(value: str) -> str | None:
    if _BARE.fullmatch(value):
        return value
    if not any(character in value for character in "'\\\r"):
        return f"'{value}'"
    if "$" in value or "`" in value:
        return None
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r")
    return f'"{escaped}"'


def _unusable(name: str) -> VariableUnusable:
    return VariableUnusable(
        f"{name} has `$` or a backtick together with a quote, a backslash or a carriage return: "
        "no dotenv line gives it to every reader unchanged",
        hint="use format: json or yaml for this file",
    )


def render(variables: Mapping[str, str]) -> str:
    """A whole file, one statement for each variable in the order given. Raises VariableUnusable."""
    # Raised here and not where the value is looked at: a crash report shows the variables of each frame.
    for name in filter(lambda name: _quoted(variables[name]) is None, variables):
        raise _unusable(name)
    return "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items())
