"""Where each value of a YAML text stands, so that one can be changed and everything else stays. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import yaml

from reconciler.spec.yaml_reader import LOADERS

_REST_OF_LINE: Final = re.compile(r"(?:[ \t]+#[^\r\n]*|[ \t]*)(?=\r?\n|\Z)")
"""What belongs to the line that a value ends on: its comment, and nothing else."""


@dataclass(slots=True)
class Node:
    """A value as it is written: `text[start:end]`. Of an alias only its name, not what it stands for."""

    kind: Literal["scalar", "alias", "map", "list"]
    start: int
    end: int
    column: int
    flow: bool = False
    """In brackets, or a scalar: its lines have no indentation of their own."""
    value: str = ""
    """Of a scalar, so of a key."""
    items: list["Node"] = field(default_factory=list)
    """Of a list; of a map the keys and values in turn."""

    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        return zip(self.items[::2], self.items[1::2], strict=True)


def layout_of(text: str) -> Node | None:
    """The one value of a text that `read_yaml` has accepted; None where it holds nothing."""
    events = yaml.parse(text, Loader=LOADERS[0])
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            return _node(event, events, text)
    return None


def line_end(text: str, end: int) -> int:
    """`end`, or behind the comment on the same line if nothing else follows there."""
    found = _REST_OF_LINE.match(text, end)
    return end if found is None else found.end()


def _node(event: yaml.Event, events: Iterator[yaml.Event], text: str) -> Node:
    start, end = event.start_mark, event.end_mark
    assert start is not None  # every event of a parser has both
    assert end is not None
    if isinstance(event, yaml.ScalarEvent):
        # A block scalar's end is the beginning of what follows.
        last = start.index + len(text[start.index : end.index].rstrip("\r\n"))
        return Node("scalar", start.index, last, start.column, flow=True, value=event.value)
    if isinstance(event, yaml.AliasEvent):
        return Node("alias", start.index, end.index, start.column, flow=True)
    assert isinstance(event, yaml.CollectionStartEvent)
    kind: Literal["map", "list"] = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
    node = Node(kind, start.index, end.index, start.column, flow=bool(event.flow_style))
    for following in events:
        if isinstance(following, yaml.CollectionEndEvent):
            assert following.end_mark is not None
            final = node.items[-1] if node.items else node
            node.end = following.end_mark.index if node.flow else line_end(text, final.end)
            return node
        node.items.append(_node(following, events, text))
    raise AssertionError("the parser ends what it begins")
