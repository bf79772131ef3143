"""YAML bytes to plain data with positions: bounded, without recursion, without surprises.

PyYAML parses (the C parser where it is there) and this module composes from its events, so that no
limit is checked too late: depth, the number of values after all aliases are followed, tags. PyYAML's own
composer is not used: it recurses, and the C one crashes the process on deep input.

Scalars follow the YAML 1.2 core schema, narrowed: only `null`, `true`, `false`, plain decimal numbers
and the like are typed. `no`, `012`, `1:30` and dates stay the text that was written.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import yaml

from reconciler.errors import Problem
from reconciler.spec.document import Map, Mark, Place, Scalar, Seq, Value, shown

MAX_BYTES = 4 * 1024 * 1024
"""Of all files of a spec together."""

MAX_DEPTH = 64
MAX_VALUES = 250_000
"""Values of one spec with every alias written out: some five thousand services."""

MAX_ALIASES = 10_000

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# At most 15 digits: such numbers are exact in JSON; a longer one is an identifier, so a text.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})\Z")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}\Z")
# What YAML forbids, and beyond that what makes a line look like another one: marks that turn the direction
# of writing, and separators that YAML takes for a line break and editors do not.
UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u061b\u061d-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff"
    "\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_MERGE = "<<"

LOADERS = (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)
"""The parser to use, and the one in Python that stands in where libyaml is missing."""


@dataclass(slots=True)
class Budget:
    """What is left for all files of one spec."""

    values: int = MAX_VALUES
    aliases: int = MAX_ALIASES


class Unreadable(Exception):
    """The file cannot be read on; the text says why, without the file's name."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same key twice in one map: the path of the map, the key and where the second one stands."""

    path: tuple[str | int, ...]
    key: str
    place: Place
    first_line: int


@dataclass(frozen=True, slots=True)
class YamlFile:
    data: Value
    duplicates: tuple[Duplicate, ...]


@dataclass(slots=True)
class _Open:
    """A map or list that is being read."""

    value: Map | Seq
    line: int
    column: int
    anchor: str | None
    size: int = 1
    key: str | None = None
    key_line: int = 0
    key_column: int = 0
    wants_key: bool = True
    merges: list[tuple[Value, int, int]] = field(default_factory=list)


def read_yaml(file: str, content: bytes, budget: Budget, *, loader: type = LOADERS[0]) -> YamlFile | Problem:
    """The file's one document. An empty file holds None. A problem means that nothing of it is usable."""
    try:
        text = _decoded(content)
        return _Composer(file, budget).compose(yaml.parse(text, Loader=loader))
    except Unreadable as error:
        return Problem(file, error.line, error.column, "", str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Problem(file, line, column, "", f"not valid YAML: {_syntax(error)}")
    except yaml.YAMLError as error:
        return Problem(file, 1, 1, "", f"not valid YAML: {_one_line(str(error))}")
    except (ValueError, OverflowError):  # the Python parser, on an escape such as "\\UFFFFFFFF"
        return Problem(file, 1, 1, "", "not valid YAML: an escape in a quoted text names no character")


def _decoded(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        raise Unreadable("not UTF-8; save the file as UTF-8", *_position(before)) from None
    text = text.removeprefix("\ufeff")
    if found := UNPRINTABLE.search(text):
        code = f"U+{ord(found[0]):04X}"
        raise Unreadable(
            f"the character {code} may not stand in YAML; remove it", *_position(text[: found.start()])
        )
    return text


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = _one_line(error.problem or "the parser gave up")
    if "cannot start any token" in problem:
        problem += "; indent with spaces, and quote a value that starts with @, `, % or a tab"
    if "mapping values are not allowed" in problem:
        problem += "; quote a value that contains `: `, or mend the indentation"
    if problem.startswith(("did not find expected", "expected")):  # libyaml's words, and the Python parser's
        flow = "flow" in (error.context or "")
        problem += (
            "; separate with a comma, or close the bracket"
            if flow
            else "; mend the indentation here or above"
        )
    if error.context and error.context_mark and error.problem_mark:
        line = error.context_mark.line
        if line != error.problem_mark.line:
            problem += f" ({_one_line(error.context)} that starts in line {line + 1})"
    return problem


def scalar_of(text: str) -> Scalar:
    """The value of a plain scalar."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


class _Composer:
    def __init__(self, file: str, budget: Budget) -> None:
        self.file = file
        self.budget = budget
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Value, int, str | None]] = {}
        self.duplicates: list[Duplicate] = []
        self.result: Value = None
        self.documents = 0

    def compose(self, events: Iterable[yaml.Event]) -> YamlFile:
        # The commonest kinds first: this loop is most of the time that a spec takes to read.
        for event in events:
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._begin(event, Map())
            elif isinstance(event, yaml.SequenceStartEvent):
                self._begin(event, Seq())
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise _at(event, "a second document starts here; a spec file holds one")
        return YamlFile(self.result, tuple(self.duplicates))

    def _spend(self, event: yaml.Event, values: int) -> None:
        self.budget.values -= values
        if self.budget.values < 0:
            raise _at(
                event, f"more than {MAX_VALUES} values with all aliases written out; make the spec smaller"
            )

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if event.tag is not None:
            raise _at(event, f"the tag {shown(event.tag)} is not allowed; a spec has no tags, quote a text")
        self._spend(event, 1)
        text: str = event.value
        plain = event.implicit[0] and not event.style  # the C parser gives "" here
        if not plain and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise _at(event, "a NUL or half a surrogate pair may not stand in a text; remove the escape")
        if event.anchor is not None:
            self.anchors[event.anchor] = (scalar_of(text) if plain else text, 1, text)
        frame = self.stack[-1] if self.stack else None
        if frame is not None and type(frame.value) is Map and frame.wants_key:
            frame.key = text
            frame.key_line, frame.key_column = _start(event)
            frame.wants_key = False
            if text == _MERGE and not plain:
                raise _at(event, 'the key "<<" is YAML\'s merge key; choose another name')
            return
        self._put(scalar_of(text) if plain else text, 1, *_start(event), text)

    def _begin(self, event: yaml.CollectionStartEvent, value: Map | Seq) -> None:
        if event.tag is not None:
            raise _at(event, f"the tag {shown(event.tag)} is not allowed; a spec has no tags")
        if len(self.stack) >= MAX_DEPTH:
            raise _at(event, f"nested deeper than {MAX_DEPTH} levels")
        self._spend(event, 1)
        if self.stack and type(self.stack[-1].value) is Map and self.stack[-1].wants_key:
            raise _at(event, "a key must be a text, not a map or a list; quote it if it starts with { or [")
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)  # known again once it is complete: never inside itself
        self.stack.append(_Open(value, *_start(event), event.anchor))

    def _end(self) -> None:
        frame = self.stack.pop()
        if frame.merges:
            self._merge(frame)
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.value, frame.size, None)
        self._put(frame.value, frame.size, frame.line, frame.column, None)

    def _alias(self, event: yaml.AliasEvent) -> None:
        self.budget.aliases -= 1
        if self.budget.aliases < 0:
            raise _at(event, f"more than {MAX_ALIASES} aliases; write the values out")
        frame = self.stack[-1] if self.stack else None
        if frame is not None and type(frame.value) is Map and frame.wants_key:
            raise _at(event, "a key may not be an alias; write the name")
        anchor = event.anchor or ""
        if anchor not in self.anchors:
            raise _at(event, f"the alias {shown('*' + anchor)} has no complete anchor before it; define it")
        value, size, literal = self.anchors[anchor]
        self._spend(event, size)
        self._put(value, size, *_start(event), literal)

    def _put(self, value: Value, size: int, line: int, column: int, literal: str | None) -> None:
        """Give a complete value to the map, list or document that is waiting for it."""
        if not self.stack:
            self.result = value
            return
        frame = self.stack[-1]
        frame.size += size
        container = frame.value
        if isinstance(container, Seq):
            container.append(value)
            container.marks.append(Mark(self.file, line, column, line, column, literal))
            return
        key = frame.key or ""
        frame.wants_key = True
        if key == _MERGE:
            frame.merges.append((value, line, column))
        elif key in container:
            path = self._path()
            place = Place(self.file, frame.key_line, frame.key_column)
            self.duplicates.append(Duplicate(path, key, place, container.marks[key].line))
        else:
            container[key] = value
            container.marks[key] = Mark(self.file, frame.key_line, frame.key_column, line, column, literal)

    def _path(self) -> tuple[str | int, ...]:
        """The path of the map on top of the stack."""
        return tuple(
            len(frame.value) if isinstance(frame.value, Seq) else frame.key or "" for frame in self.stack[:-1]
        )

    def _merge(self, frame: _Open) -> None:
        """`<<: *base`, `<<: [*first, *second]`: what is written out wins, then the earlier one."""
        target = frame.value
        for merged, line, column in frame.merges:
            for source in merged if isinstance(merged, Seq) else [merged]:
                if not isinstance(source, Map) or not isinstance(target, Map):
                    raise Unreadable("`<<` takes a map or a list of maps", line, column)
                for key, value, mark in source.entries():
                    if key not in target:
                        target.put(key, value, mark)


def _start(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _at(event: yaml.Event, message: str) -> Unreadable:
    return Unreadable(message, *_start(event))
