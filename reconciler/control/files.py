"""Operators' records as YAML files: bytes to `Record` and back. Pure.

People write such files by hand too, so that a key that nothing knows, or one that a kind has no use for,
is an error with its line and never ignored: what was meant by it would not happen. The name of a file is
the record's number and stands nowhere else.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from reconciler.control.records import Record
from reconciler.errors import ControlUnreadable, Problem
from reconciler.spec.document import Map, Place, dotted, key_place, value_place
from reconciler.spec.schema import Schema, violations
from reconciler.spec.yaml_reader import Budget, read_yaml
from reconciler.status.files import dump
from schema import read_schema

VERSION: Final = 1
MAX_FILE: Final = 64 << 10
"""Bytes of one record."""
MAX_NUMBER: Final = 999_999

_PATH: Final = re.compile(r"records/([0-9]{6})\.yaml")


@lru_cache(maxsize=1)
def control_schema() -> Schema:
    """The schema as shipped. Treat it as constant."""
    schema: Schema = json.loads(read_schema("control.v1.schema.json"))
    return schema


def path_of(number: int) -> str:
    """Where the record with that number stands on the branch."""
    if not 0 < number <= MAX_NUMBER:
        raise ControlUnreadable(f"{number} is no number of a record; they go from 1 to {MAX_NUMBER}")
    return f"records/{number:06}.yaml"


def number_of(path: str) -> int:
    """The number of the record at a path. Raises ControlUnreadable for a path that no record has."""
    found = _PATH.fullmatch(path)
    if found is None or int(found[1]) == 0:
        raise ControlUnreadable(
            f"{path!r} is not the path of an operator's record",
            hint="records are records/000001.yaml and so on, and nothing else belongs on this branch",
        )
    return int(found[1])


def render_record(record: Record) -> bytes:
    """The file of one record."""
    body: dict[str, Any] = msgspec.to_builtins(record)
    body.pop("number", None)
    return dump({"version": VERSION, **body})


def parse_record(path: str, content: bytes) -> Record:
    """The record in a file. Raises ControlUnreadable with the place of the first thing that is wrong."""
    number = number_of(path)
    if len(content) > MAX_FILE:
        raise ControlUnreadable(f"{path} has {len(content)} bytes, more than the {MAX_FILE} of a record")
    read = read_yaml(path, content, Budget())
    if isinstance(read, Problem):
        raise ControlUnreadable(str(read))
    data = read.data
    if not isinstance(data, Map):
        raise ControlUnreadable(f"{path} does not hold a map")
    if read.duplicates:
        twice = read.duplicates[0]
        raise ControlUnreadable(str(Problem(path, *twice.place[1:], "", f"`{twice.key}` stands here twice")))
    for violation in violations(data, control_schema()):
        place_of = key_place if violation.of_key else value_place
        place = place_of(data, violation.path, Place(path, 1, 1))
        raise ControlUnreadable(
            str(Problem(path, place.line, place.column, dotted(violation.path), violation.message))
        )
    fields = {name: value for name, value in data.items() if name != "version"}
    try:
        return msgspec.convert({**fields, "number": number}, Record)
    except (msgspec.ValidationError, ValueError) as error:
        raise ControlUnreadable(f"{path}: {error}") from None
