"""Writes the small part of TOML 1.0 that agent.toml needs; what it writes, `tomllib` reads back equal."""

import re
from collections.abc import Mapping, Sequence

Scalar = str | int | float | bool
Value = Scalar | Sequence[str]
Table = Mapping[str, "Value | Mapping[str, Value]"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def write_toml(table: Table, *, comment: str = "") -> str:
    """A document with `comment` on top, the plain values, then one level of tables.

    Raises ValueError for text that TOML cannot hold (lone surrogates).
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(key)} = {_value(value)}" for key, value in inner.items()]
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    return text if _BARE_KEY.fullmatch(text) else _string(text)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    return "[" + ", ".join(map(_string, value)) + "]"


def _string(text: str) -> str:
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise ValueError("TOML cannot hold a lone surrogate")
    # Everything invisible is escaped too, so that a file shows what it says.
    if code < 0x20 or code == 0x7F or not character.isprintable():
        return f"\\U{code:08X}"
    return character
