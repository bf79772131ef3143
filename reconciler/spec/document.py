"""Plain data that knows where it was written: what the YAML reader makes and all later parts share.

A `Map` and a `Seq` are an ordinary dict and list, so that JSON Schema and everything else can read
them; beside each entry they keep a `Mark`. Positions are found by walking a path from the top, which
stays right when maps of several files are merged or an override is laid over a resource.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Scalar: TypeAlias = bool | int | float | str | None
Value: TypeAlias = "Scalar | Map | Seq"
Path: TypeAlias = tuple[str | int, ...]


class Mark(NamedTuple):
    """Where an entry stands; lines and columns count from 1.

    `line`, `column` is the entry's own start: the key of a map's entry, the first character of an item.
    `value_line`, `value_column` is where its value starts. `literal` is a scalar's text as written.
    """

    file: str
    line: int
    column: int
    value_line: int
    value_column: int
    literal: str | None


class Map(dict[str, "Value"]):
    """A YAML mapping with string keys; `marks` has the same keys."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[str, Mark] = {}

    def put(self, key: str, value: Value, mark: Mark) -> None:
        self[key] = value
        self.marks[key] = mark

    def entries(self) -> Iterator[tuple[str, Value, Mark]]:
        for key, value in self.items():
            yield key, value, self.marks[key]


class Seq(list["Value"]):
    """A YAML sequence; `marks` has the same length."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []

    def put(self, value: Value, mark: Mark) -> None:
        self.append(value)
        self.marks.append(mark)


class Place(NamedTuple):
    file: str
    line: int
    column: int


def mark_of(data: Value, path: Path) -> Mark | None:
    """The mark of the entry at `path`, or of the nearest one above it that is written in a file."""
    found: Mark | None = None
    for step in path:
        if isinstance(data, Map) and isinstance(step, str) and step in data:
            found, data = data.marks[step], data[step]
        elif isinstance(data, Seq) and isinstance(step, int) and 0 <= step < len(data):
            mark, item = data.marks[step], data[step]
            found, data = mark, item
        else:
            break
    return found


def key_place(data: Value, path: Path, default: Place) -> Place:
    """Where an entry starts, key and all."""
    mark = mark_of(data, path)
    return Place(mark.file, mark.line, mark.column) if mark else default


def value_place(data: Value, path: Path, default: Place) -> Place:
    """Where a scalar starts; a map or list is named by its key, since it may start on another line."""
    mark = mark_of(data, path)
    if mark is None:
        return default
    if mark.literal is None:
        return Place(mark.file, mark.line, mark.column)
    return Place(mark.file, mark.value_line, mark.value_column)


def dotted(path: Path) -> str:
    """A path as people read it: `services.web.secrets[0].source`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = shown(step) if not step.isidentifier() and not _plain(step) else step
            text += f".{name}" if text else name
    return text


def _plain(name: str) -> bool:
    return bool(name) and all(c.isalnum() or c in "-_" for c in name) and name.isascii()


def shown(value: object, limit: int = 40) -> str:
    """A value for a message: quoted, short, with control and invisible characters escaped."""
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f"`{safe}`"


def type_name(value: Value) -> str:
    """What a value is, for a message."""
    match value:
        case Map():
            return "a map"
        case Seq():
            return "a list"
        case None:
            return "empty"
        case bool():
            return "true or false"
        case str():
            return "a text"
    return "a number"
