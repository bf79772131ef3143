"""Valid YAML data to what the model's types take, led by the schema's `x-parse` and its shorthands.

The data must already fit the schema. What no converter concerns is handed on as it is.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from reconciler.spec.document import Map, Mark, Seq, Value
from reconciler.spec.schema import Schema, branch_of, definition, resolved, spec_schema
from reconciler.spec.values import parse_duration, parse_mode, parse_percentage, parse_size

Converter: TypeAlias = Callable[[Any, Mark | None], Any]


def converted(data: Value, name: str) -> Any:
    """`data`, which fits the schema's definition `name`, as builtins in the model's shape."""
    convert = _of_definition(name)
    return data if convert is None else convert(data, None)


def converted_section(data: Value, name: str) -> Any:
    """The same for a whole section of the document, such as `limits`."""
    convert = _converter(spec_schema()["properties"][name])
    return data if convert is None else convert(data, None)


@lru_cache(maxsize=64)
def _of_definition(name: str) -> Converter | None:
    return _converter(definition(name))


def _converter(schema: Schema) -> Converter | None:
    """The converter for `schema`, or None where it would change nothing."""
    schema = resolved(schema)
    if "x-parse" in schema:
        return _PARSERS[schema["x-parse"]]
    if "oneOf" in schema:
        return _union(schema)
    if "items" in schema:
        return _list(_converter(schema["items"]))
    if "properties" in schema or "additionalProperties" in schema:
        properties = {
            key: found
            for key, each in schema.get("properties", {}).items()
            if (found := _converter(each)) is not None
        }
        rest = schema.get("additionalProperties")
        other = _converter(rest) if isinstance(rest, Mapping) else None
        return _map(properties, other) if properties or other else None
    return None


def _map(properties: Mapping[str, Converter], other: Converter | None) -> Converter:
    def convert(value: Map, _mark: Mark | None) -> dict[str, Any]:
        marks = value.marks
        return {
            key: item if (found := properties.get(key, other)) is None else found(item, marks[key])
            for key, item in value.items()
        }

    return convert


def _list(each: Converter | None) -> Converter | None:
    if each is None:
        return None

    def convert(value: Seq, _mark: Mark | None) -> list[Any]:
        return [each(item, mark) for item, mark in zip(value, value.marks, strict=True)]

    return convert


def _union(schema: Schema) -> Converter | None:
    converters = {id(branch): found for branch in _branches(schema) if (found := _converter(branch))}
    if not converters:
        return None

    def convert(value: Any, mark: Mark | None) -> Any:
        found = converters.get(id(branch_of(value, schema)))
        return value if found is None else found(value, mark)

    return convert


def _branches(schema: Schema) -> list[Schema]:
    found: list[Schema] = []
    for each in schema["oneOf"]:
        branch = resolved(each)
        found += _branches(branch) if "oneOf" in branch else [branch]
    return found


def _literal(value: Any, mark: Mark | None) -> str:
    return value if isinstance(value, str) or mark is None or mark.literal is None else mark.literal


def _credential(value: Map, _mark: Mark | None) -> dict[str, str]:
    [(kind, where)] = value.items()
    if kind == "env":
        return {"from": "env", "name": str(where)}
    if kind == "file":
        return {"from": "file", "path": str(where)}
    source, _, key = str(where).partition("/")
    return {"from": "secret", "source": source, "key": key}


def _health(value: str, _mark: Mark | None) -> dict[str, str]:
    return {"tcp": value.removeprefix("tcp://")} if value.startswith("tcp://") else {"http": value}


_PARSERS: Mapping[str, Converter] = {
    "duration": lambda value, _mark: parse_duration(value),
    "rate": lambda value, _mark: parse_size(value),
    "percentage": lambda value, _mark: parse_percentage(value),
    "mode": lambda value, _mark: parse_mode(value),
    "literal": _literal,
    "credential": _credential,
    "health": _health,
    "secret_use": lambda value, _mark: {"source": value},
    "target_key": lambda value, _mark: {"key": value, "name": value},
    "window": lambda value, _mark: {"allow": value},
    "build": lambda value, _mark: {"task": value},
}
