"""One flat YAML map of names to texts, and nothing else; for decrypted files.

A number, a boolean or null is refused: which text it stands for differs from reader to reader (`012`, `1.0`,
`1e3`), and a secret must come out as somebody typed it. So are lists, maps in maps, anchors, aliases, tags
and a second document. No message holds anything of the file but a name.
"""

import re

import yaml

from reconciler.secrets.dotenv import BadLine
from reconciler.spec.yaml_reader import LOADERS, scalar_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
# Old YAML takes these for line breaks, which in a text become a space; people's editors show none.
_STRANGE_BREAK = re.compile("[\x85\u2028\u2029]")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


class _Bad(Exception):
    def __init__(self, event: yaml.Event, problem: str) -> None:
        super().__init__()
        self.found = BadLine(event.start_mark.line + 1 if event.start_mark else 1, problem)


def parse(text: str, *, loader: type = LOADERS[0]) -> dict[str, str] | BadLine:
    """Names and texts, in order; a BadLine instead where the file holds anything else."""
    if strange := _STRANGE_BREAK.search(text):
        line = text.count("\n", 0, strange.start()) + 1
        return BadLine(line, f"U+{ord(strange[0]):04X} may not stand in YAML; escape it in double quotes")
    try:
        return _parse(text, loader)
    except _Bad as bad:
        return bad.found
    except yaml.MarkedYAMLError as error:
        # PyYAML's own words may quote the file.
        mark = error.problem_mark or error.context_mark
        return BadLine(mark.line + 1 if mark else 1, "not valid YAML")
    except (yaml.YAMLError, ValueError, OverflowError):
        return BadLine(1, "not valid YAML")


def _parse(text: str, loader: type) -> dict[str, str]:
    values: dict[str, str] = {}
    key: str | None = None
    documents = depth = 0
    for event in yaml.parse(text, Loader=loader):
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise _Bad(event, "a second document; one is needed")
            case yaml.MappingStartEvent() if depth == 0 and _plain(event):
                depth = 1
            case yaml.MappingEndEvent():
                depth = 0
            case yaml.ScalarEvent() if depth == 0 and _is_null(event):
                pass  # an empty file, or nothing but comments
            case yaml.ScalarEvent() if depth == 0:
                raise _Bad(event, "one map of names to texts is needed")
            case yaml.ScalarEvent() if key is not None:
                values[key] = _text(event, key)
                key = None
            case yaml.ScalarEvent():
                key = _name(event)
                if key in values:
                    raise _Bad(event, f"{key} is there twice")
            case yaml.NodeEvent():
                what = "one map of names to texts is needed" if depth == 0 else "a text is needed"
                raise _Bad(event, f"{key}: {what}" if key is not None else what)
    return values


def _plain(event: yaml.NodeEvent) -> bool:
    return event.anchor is None and getattr(event, "tag", None) is None


def _is_null(event: yaml.ScalarEvent) -> bool:
    return _plain(event) and event.value == "" and not event.style


def _name(event: yaml.ScalarEvent) -> str:
    name: str = event.value
    if not _plain(event) or not _NAME.fullmatch(name):
        raise _Bad(event, "a name has letters, digits, `_`, `.` and `-`, and no anchor or tag")
    return name


def _text(event: yaml.ScalarEvent, key: str) -> str:
    text: str = event.value
    if not _plain(event):
        raise _Bad(event, f"{key}: a text without an anchor or a tag is needed")
    if not event.style and event.implicit[0] and not isinstance(scalar_of(text), str):
        raise _Bad(event, f"{key}: a text is needed, not a number, a boolean or nothing; put it in quotes")
    if _NOT_TEXT.search(text):
        raise _Bad(event, f"{key}: a NUL or half a surrogate pair may not stand in a text")
    return text
