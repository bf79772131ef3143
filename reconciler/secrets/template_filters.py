"""The filters of templates: texts and flat lists of them. Pure.

What a filter gives is at most a few times as long as what it got, or it looks before it makes it.
"""

import base64
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Undefined

from reconciler.secrets import dotenv

MAX_TEXT = 4 << 20
MAX_INDENT = 64

_TEXT_FOR_A_STEP = 256
# Line ends and invisible characters that YAML or TOML would take for something else, or refuse.
_NOT_PLAIN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class Misuse(Exception):
    """Something that a template may not do with this kind of value; its texts never hold a value."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def cost(value: object) -> int:
    """The steps for having or looking at a value."""
    if isinstance(value, str):
        return 1 + len(value) // _TEXT_FOR_A_STEP
    if isinstance(value, range):
        return 1 + len(value)
    if isinstance(value, list | tuple):
        return 1 + sum(1 + len(each) // _TEXT_FOR_A_STEP if isinstance(each, str) else 1 for each in value)
    return 1


def flat(value: Any) -> Any:
    """What may be an item of a list: no list. Lists in lists could stand for far more than they hold."""
    if isinstance(value, Undefined):
        str(value)  # raises
    if value is None or isinstance(value, str | int | float):
        return value
    raise Misuse("only texts and numbers can be put into a list", "use one list for each of them")


def text(value: Any) -> str:
    """A text or number as it is written. Nothing else: `True`, `None` and lists are no configuration."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # raises
    raise Misuse("this is neither a text nor a number", "use |tojson, or |join(',') for a list")


def _default(value: Any, otherwise: Any = "", boolean: bool = False) -> Any:
    return otherwise if isinstance(value, Undefined) or (boolean and not value) else value


def _replace(value: Any, old: Any, new: Any) -> str:
    whole, before, after = text(value), text(old), text(new)
    _check(len(whole) + (whole.count(before) * len(after)))
    return whole.replace(before, after)


def _join(value: Any, between: Any = "") -> str:
    pieces, separator = [text(each) for each in _sequence(value)], text(between)
    _check(sum(len(piece) + len(separator) for piece in pieces))
    return separator.join(pieces)


def _check(length: int) -> None:
    if length > MAX_TEXT:
        raise Misuse(f"this would give more than {MAX_TEXT} characters", "make it smaller")


def _sequence(value: Any) -> Sequence[Any]:
    if isinstance(value, Undefined):
        str(value)  # raises
    if not isinstance(value, list | tuple | range):
        raise Misuse("this is no list", "make one of a text with .split(',') or .splitlines()")
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(_sequence(value))


def _sort(value: Any) -> list[str]:
    return sorted(text(each) for each in _sequence(value))


def _int(value: Any) -> int:
    try:
        return int(text(value))
    except ValueError:
        pass
    raise Misuse("this is no whole number", "correct the value, or leave |int out")


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    if not 0 <= width <= MAX_INDENT:
        raise Misuse(f"an indent is 0 to {MAX_INDENT} characters wide", "make it smaller")
    margin = " " * width
    lines = text(value).splitlines(keepends=True)
    return "".join(margin + line if first or number else line for number, line in enumerate(lines))


def _urlencode(value: Any) -> str:
    return quote(text(value), safe="")


def _b64encode(value: Any) -> str:
    return base64.b64encode(text(value).encode()).decode()


def _tojson(value: Any) -> str:
    """JSON that is a string of TOML and YAML too. Not escaped for HTML, as Jinja's own would be."""
    if isinstance(value, Undefined):
        str(value)  # raises
    if not isinstance(value, str | int | float | None):
        value = [flat(each) for each in _sequence(value)]
    made = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_PLAIN.sub(lambda found: f"\\u{ord(found[0]):04x}", made)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "b64encode": _b64encode,
    "d": _default,
    "default": _default,
    "dotenv": lambda value: dotenv.quote("the value", text(value)),
    "indent": _indent,
    "int": _int,
    "join": _join,
    "length": _length,
    "lower": lambda value: text(value).lower(),
    "replace": _replace,
    "shell_quote": lambda value: shlex.quote(text(value)),
    "sort": _sort,
    "tojson": _tojson,
    "trim": lambda value: text(value).strip(),
    "upper": lambda value: text(value).upper(),
    "urlencode": _urlencode,
}
