"""A YAML text rewritten to say something else: comments, order and layout of all the rest stay. Pure.

A person's file is theirs. What is not to change is copied as it is written, byte for byte, and what comes
out is read again: it says what was wanted, or nothing is changed at all.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from reconciler.errors import Problem, SettingsError
from reconciler.spec.yaml_layout import Node, layout_of, line_end
from reconciler.spec.yaml_reader import UNPRINTABLE, Budget, read_yaml

WIDTH: Final = 100
"""Characters of a new entry on one line; a longer one gets a line for each of its parts."""

_PLAIN: Final = re.compile(
    r"[A-Za-z_/][A-Za-z0-9_./%+-]*|[1-9][0-9]*(?:\.[0-9]+)?(?:ms|[smhd]|[KMG]?i?B(?:/s)?)"
)
_TYPED: Final = re.compile(r"null|true|false|yes|no|on|off|y|n|inf|nan|infinity", re.IGNORECASE)
_MERGE: Final = "<<"


def rewritten(name: str, content: bytes, wanted: Mapping[str, Any]) -> bytes:
    """The file `name` with what is in `wanted` as its whole document.

    Raises SettingsError where the file cannot be read, or is written in a way (aliases, say) in which this
    cannot be said without changing something else.
    """
    text = content.decode("utf-8", "replace")
    mark, text = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    data = read_document(name, content)
    if same(data, wanted):
        return content
    layout = layout_of(text)
    if layout is None or data is None:
        new = f"{text.rstrip()}\n{_lines(wanted, 0)}\n".lstrip("\n")
    else:
        new = text[: layout.start] + _Writer(text).node(layout, data, wanted, block=True) + text[layout.end :]
    result = (mark + new).encode()
    after = read_yaml(name, result, Budget())
    if isinstance(after, Problem) or not same(after.data, wanted):
        raise SettingsError(
            f"{name} is written in a way in which this cannot be changed by itself",
            hint="edit the file by hand",
        )
    return result


def read_document(name: str, content: bytes) -> Any:
    """What a file of a spec holds. Raises SettingsError for one that cannot be edited as it is."""
    read = read_yaml(name, content, Budget())
    if isinstance(read, Problem):
        raise SettingsError(f"{name} cannot be edited: {read}", hint="see `trueup validate`")
    if read.duplicates:
        twice = read.duplicates[0]
        raise SettingsError(
            f"{name} cannot be edited: {twice.key} stands there twice, again in line {twice.place.line}",
            hint="remove one",
        )
    return read.data


def same(one: Any, other: Any) -> bool:
    """Equal in value and in kind: `1` is not `true`. The order of a map's keys does not count."""
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


class _Writer:
    def __init__(self, text: str) -> None:
        self._text = text

    def node(self, node: Node, data: Any, wanted: Any, *, block: bool) -> str:
        """What stands in the place of a node. `block`: nothing around it is in brackets."""
        if same(data, wanted):
            return self._text[node.start : node.end]
        if not _is_like(node, wanted):
            return _inline(wanted)
        if node.kind == "list":
            return self._list(node, data, wanted, block and not node.flow)
        return self._flow_map(node, data, wanted) if node.flow else self._block_map(node, data, wanted, block)

    def _after_key(self, key: Node, value: Node, data: Any, wanted: Any, *, block: bool) -> str:
        """All that follows a key: colon, space or lines, and the value."""
        if same(data, wanted) or _is_like(value, wanted):
            return self._text[key.end : value.start] + self.node(value, data, wanted, block=block)
        before_colon = self._text[key.end : value.start].partition(":")[0]
        if before_colon.strip(" \t") or not block:  # `? key` has its colon on a line of its own
            return f"{before_colon}: {_inline(wanted)}"
        return ":" + _fresh(wanted, key.column + 2)

    def _block_map(self, node: Node, data: Any, wanted: Mapping[str, Any], block: bool) -> str:
        out = ""
        at = node.start
        for key, value in node.pairs():
            lead, end = self._text[at : key.start], line_end(self._text, value.end)
            at = end
            if key.value != _MERGE and key.value not in wanted:
                continue
            if not out:
                lead = lead.lstrip()
            mine = data[key.value] if key.value != _MERGE else None
            now = wanted[key.value] if key.value != _MERGE else None
            out += lead + self._text[key.start : key.end]
            out += self._after_key(key, value, mine, now, block=block) + self._text[value.end : end]
        own = {key.value for key, _ in node.pairs()}
        for name, value_wanted in wanted.items():
            merged = name in data and same(data[name], value_wanted)
            if name not in own and not merged:
                line = f"{_key(name)}:{_fresh(value_wanted, node.column + 2)}"
                out += (f"\n{' ' * node.column}" if out else "") + line
        return out

    def _flow_map(self, node: Node, data: Any, wanted: Mapping[str, Any]) -> str:
        parts: list[tuple[int, str]] = []
        pairs = list(node.pairs())
        for index, (key, value) in enumerate(pairs):
            if key.value == _MERGE:
                parts.append((index, self._text[key.start : value.end]))
            elif key.value in wanted:
                rest = self._after_key(key, value, data[key.value], wanted[key.value], block=False)
                parts.append((index, self._text[key.start : key.end] + rest))
        own = {key.value for key, _ in pairs}
        parts += [
            (-1, f"{_key(name)}: {_inline(value)}")
            for name, value in wanted.items()
            if name not in own and not (name in data and same(data[name], value))
        ]
        return self._in_brackets(node, [(key.start, value.end) for key, value in pairs], parts)

    def _list(self, node: Node, data: Sequence[Any], wanted: Sequence[Any], block: bool) -> str:
        old, new = [_text(each) for each in data], [_text(each) for each in wanted]
        parts: list[tuple[int, str]] = []
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "equal":
                parts += [(at, self._text[node.items[at].start : node.items[at].end]) for at in range(i1, i2)]
                continue
            for i, j in zip(range(i1, i2), range(j1, j2), strict=False):
                parts.append((i, self.node(node.items[i], data[i], wanted[j], block=block)))
            parts += [(-1, _inline(wanted[j])) for j in range(j1 + min(i2 - i1, j2 - j1), j2)]
        if node.flow:
            return self._in_brackets(node, [(each.start, each.end) for each in node.items], parts)
        return self._in_lines(node, parts)

    def _in_lines(self, node: Node, parts: Sequence[tuple[int, str]]) -> str:
        """Items of a block list, each kept one with the comments above it and on its line."""
        ends = [line_end(self._text, item.end) for item in node.items]
        out = ""
        for index, text in parts:
            if index < 0:
                out += (f"\n{' ' * node.column}" if out else "") + f"- {text}"
                continue
            lead = self._text[ends[index - 1] if index else node.start : node.items[index].start]
            if not out:
                lead = lead.lstrip()
            elif index == 0:
                lead = f"\n{' ' * node.column}{lead}"
            out += lead + text + self._text[node.items[index].end : ends[index]]
        return out

    def _in_brackets(
        self, node: Node, spans: Sequence[tuple[int, int]], parts: Sequence[tuple[int, str]]
    ) -> str:
        """Entries between brackets; two neighbours keep what stands between them."""
        out = self._text[node.start : spans[0][0]]
        before = -1
        for number, (index, text) in enumerate(parts):
            if number:
                neighbours = index > 0 and index == before + 1 and before >= 0
                out += self._text[spans[before][1] : spans[index][0]] if neighbours else ", "
            out += text
            before = index
        return out + self._text[spans[-1][1] : node.end]


def _is_like(node: Node, wanted: Any) -> bool:
    """Whether what is written can be changed entry by entry."""
    kind = Mapping if node.kind == "map" else list if node.kind == "list" else ()
    return bool(node.items) and bool(wanted) and isinstance(wanted, kind)


# --- new text ----------------------------------------------------------------------------------


def _fresh(value: Any, indent: int) -> str:
    """What follows the colon of a new key: on its line, or below where that is easier to read."""
    line = _inline(value)
    if not value or not isinstance(value, Mapping | list):
        return f" {line}"
    if _is_flat(value) and len(line) <= WIDTH - indent:
        return f" {line}"
    if isinstance(value, Mapping):
        return "\n" + _lines(value, indent)
    return "".join(f"\n{' ' * indent}- {_inline(each)}" for each in value)


def _lines(value: Mapping[str, Any], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{_key(key)}:{_fresh(each, indent + 2)}" for key, each in value.items())


def _is_flat(value: Mapping[str, Any] | list[Any]) -> bool:
    """No list of maps, nor a map of nothing but maps, which are read better below each other."""
    if isinstance(value, list):
        return not any(isinstance(each, Mapping) for each in value)
    return not all(isinstance(each, Mapping) for each in value.values())


def _inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return scalar(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return scalar(name)


def scalar(value: str) -> str:
    """A text as a YAML scalar: as it is where every reader takes it for a text, else in double quotes."""
    if _PLAIN.fullmatch(value) and not _TYPED.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)  # JSON's strings are a part of YAML's
    return UNPRINTABLE.sub(lambda found: f"\\U{ord(found[0]):08x}", quoted)
