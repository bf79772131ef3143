"""The JSON Schema applied to a spec, with messages for people.

`jsonschema` walks the schema and the data; the keywords that the schema uses are given here with their
own messages, and with one difference in what they tell, never in what they accept: a union (`oneOf`) is
judged by the one branch that the data means, found by `kind` (`x-choose`) or by the data's type, so that
the error is that branch's. A test holds this against the plain validator.

Extensions in the schema, all ignored by other readers: `x-choose` the property that names a union's
branch, `x-parse` how a text becomes a number (see `values`), `x-echo: false` values that no message may
repeat, and the editors' own `patternErrorMessage`.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from reconciler.spec.document import Path, Value, shown
from schema import read_schema

SCHEMA_FILE = "spec.v1.schema.json"

Schema: TypeAlias = Mapping[str, Any]
Found: TypeAlias = Iterator[ValidationError]

NEVER_HERE = (
    "a secret value may not stand in a spec; say where it is found: "
    "{env: NAME}, {file: PATH} or {secret: SOURCE/KEY}"
)
_KINDS = {
    "object": "a map",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


@lru_cache(maxsize=1)
def spec_schema() -> Schema:
    """The schema as shipped. Treat it as constant."""
    schema: Schema = json.loads(read_schema(SCHEMA_FILE))
    return schema


def definition(name: str) -> Schema:
    found: Schema = spec_schema()["$defs"][name]
    return found


def resolved(schema: Schema) -> Schema:
    """The schema that a `$ref` leads to; a schema without one is itself."""
    while "$ref" in schema:
        schema = definition(schema["$ref"].removeprefix("#/$defs/"))
    return schema


def type_of(value: object) -> str:
    """The JSON type's name."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    return "null" if value is None else "number"


def fits(value: object, types: str | Sequence[str]) -> bool:
    names = [types] if isinstance(types, str) else types
    own = type_of(value)
    return own in names or (own == "integer" and "number" in names)


def branch_of(value: Value, schema: Schema) -> Schema | None:
    """The branch of a `oneOf` that `value` means, resolved; None where nothing tells."""
    key = schema.get("x-choose")
    for each in schema["oneOf"]:
        branch = resolved(each)
        if key is not None:
            if isinstance(value, dict) and branch["properties"][key]["const"] == value.get(key):
                return branch
        elif "oneOf" in branch:
            if (inner := branch_of(value, branch)) is not None:
                return inner
        elif fits(value, branch["type"]):
            return branch
    return None


def suggest(name: str, choices: Sequence[str], *, all_up_to: int = 12) -> str:
    """`did you mean X?`, or the names to choose from where there are few, or nothing."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {shown(close[0])}?"
    if choices and len(choices) <= all_up_to:
        return "choose " + ", ".join(shown(choice) for choice in choices)
    return ""


def _joined(message: str, advice: str) -> str:
    return f"{message}; {advice}" if advice else message


def _kinds(types: str | Sequence[str]) -> str:
    names = [types] if isinstance(types, str) else list(types)
    return " or ".join(_KINDS[name] for name in names)


_OF_KEY = "key"


def _error(message: str, path: Sequence[str | int] = ()) -> ValidationError:
    return ValidationError(message, path=path)


def _key_error(message: str, key: str) -> ValidationError:
    """An error of a key itself and not of its value."""
    return ValidationError(message, path=[key], validator=_OF_KEY)


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    # In JSON Schema `$` is the end; in Python it would also match before a final line break.
    return re.compile(pattern.replace("$", r"\Z"))


_TEXT_KEYWORDS = frozenset({"type", "pattern", "enum", "maxLength", "minLength"})
_REMARKS = frozenset({"title", "description", "default", "patternErrorMessage", "x-parse", "x-echo"})
_text_schemas: dict[int, Schema | None] = {}


def _plainly_fits(value: Value, schema: Schema) -> bool:
    """Whether `value` is a text that `schema` takes for certain; False says nothing.

    Most of a spec is such texts, and a step of the validator for each costs more than all the rest.
    """
    if not isinstance(value, str):
        return False
    key = id(schema)  # the schema's parts live as long as the process
    if key not in _text_schemas:
        target = resolved(schema)
        keywords = target.keys() - _REMARKS
        plain = keywords <= _TEXT_KEYWORDS and target.get("type") == "string"
        _text_schemas[key] = target if plain else None
    rules = _text_schemas[key]
    return (
        rules is not None
        and ("enum" not in rules or value in rules["enum"])
        and ("pattern" not in rules or _regex(rules["pattern"]).search(value) is not None)
        and rules.get("minLength", 0) <= len(value) <= rules.get("maxLength", len(value))
    )


# --- keywords ----------------------------------------------------------------------------------


def _into(validator: Any, value: Value, schema: Schema, step: str | int | None = None) -> Found:
    """Judge a part of the data by a part of the schema; `step` is the key or index that leads to it."""
    if _plainly_fits(value, schema):
        return
    target = resolved(schema)
    if target.get("x-parse") != "credential":
        yield from validator.descend(value, target, path=step)
    elif next(validator.descend(value, target), None) is not None:
        yield _error(_credential_message(value), [] if step is None else [step])


def _ref(validator: Any, _reference: str, instance: Value, schema: Schema) -> Found:
    yield from _into(validator, instance, schema)


def _credential_message(instance: Value) -> str:
    if isinstance(instance, dict) and len(instance) == 1:
        [key] = instance
        match key:
            case "env":
                return "`env` takes the name of a variable, such as {env: API_TOKEN}; never the value itself"
            case "file":
                return "`file` takes a path on the primary, such as {file: /etc/trueup/token}"
            case "secret":
                return "`secret` takes SOURCE/KEY, such as {secret: local/API_TOKEN}"
    return NEVER_HERE


def _type(_validator: Any, types: str | Sequence[str], instance: Value, schema: Schema) -> Found:
    if not fits(instance, types):
        message = f"is {_kinds(type_of(instance))}, and must be {_kinds(types)}"
        yield _error(_joined(message, schema.get("patternErrorMessage", "")))


def _properties(validator: Any, properties: Mapping[str, Schema], instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, dict):
        for key, value in instance.items():
            if key in properties:
                yield from _into(validator, value, properties[key], key)


def _items(validator: Any, schema: Schema, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, list):
        for index, item in enumerate(instance):
            yield from _into(validator, item, schema, index)


def _additional(validator: Any, allowed: bool | Schema, instance: Value, schema: Schema) -> Found:
    if not isinstance(instance, dict):
        return
    properties: Mapping[str, Schema] = schema.get("properties", {})
    for key, value in instance.items():
        if key in properties:
            continue
        if isinstance(allowed, Mapping):
            yield from _into(validator, value, allowed, key)
        else:
            yield _key_error(_joined(f"unknown key {shown(key)}", _advice(key, properties)), key)


def _advice(key: str, properties: Mapping[str, Schema]) -> str:
    for name, each in properties.items():
        if key in resolved(each).get("properties", {}):
            return f"it belongs under `{name}`"
    return suggest(key, list(properties)) or "remove it"


def _required(_validator: Any, names: Sequence[str], instance: Value, schema: Schema) -> Found:
    if not isinstance(instance, dict):
        return
    properties: Mapping[str, Schema] = schema["properties"]
    for name in names:
        if name not in instance and not _misspelt(name, instance, properties):
            about = properties[name].get("description", "")
            yield _error(f"`{name}` is missing; it is needed here ({about.rstrip('.')})")


def _misspelt(name: str, instance: Mapping[str, Value], properties: Mapping[str, Schema]) -> bool:
    """Whether an unknown key is told to be this one already: mending that gives it."""
    unknown = [key for key in instance if key not in properties]
    return any(difflib.get_close_matches(key, properties, n=1, cutoff=0.6) == [name] for key in unknown)


def _enum(_validator: Any, choices: Sequence[str], instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, str) and instance not in choices:
        yield _error(_joined(f"{shown(instance)} is not one of the choices", _choices(instance, choices)))


def _choices(given: str, choices: Sequence[str]) -> str:
    listed = "choose " + ", ".join(choices)
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.6)
    return f"did you mean {shown(close[0])}? ({listed})" if close else listed


def _const(_validator: Any, wanted: object, instance: Value, _schema: Schema) -> Found:
    if type_of(instance) != type_of(wanted):
        yield _error(f"is {_kinds(type_of(instance))}, and must be {_kinds(type_of(wanted))}: {wanted}")
    elif instance != wanted:
        yield _error(f"is {shown(instance)}, and must be {wanted}")


def _pattern(_validator: Any, pattern: str, instance: Value, schema: Schema) -> Found:
    if isinstance(instance, str) and not _regex(pattern).search(instance):
        message = schema.get("patternErrorMessage", "does not have the right form")
        if schema.get("x-echo", True) and instance:
            yield _error(f"{shown(instance)} will not do; {message}")
        else:
            yield _error(f"{'this' if instance else 'an empty text'} will not do; {message}")


def _minimum(_validator: Any, least: float, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, int | float) and not isinstance(instance, bool) and instance < least:
        yield _error(f"{instance} is too small; at least {least}")


def _maximum(_validator: Any, most: float, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, int | float) and not isinstance(instance, bool) and instance > most:
        yield _error(f"{instance} is too large; at most {most}")


def _min_length(_validator: Any, least: int, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, str) and len(instance) < least:
        yield _error("may not be empty; write a value or remove the key")


def _max_length(_validator: Any, most: int, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, str) and len(instance) > most:
        yield _error(f"longer than {most} characters; shorten it")


def _min_items(_validator: Any, least: int, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, list) and len(instance) < least:
        yield _error(f"has {len(instance)} entries; at least {least} must be given")


def _min_properties(_validator: Any, least: int, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, dict) and len(instance) < least:
        yield _error(f"has {len(instance)} entries; at least {least} must be given")


def _max_properties(_validator: Any, most: int, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, dict) and len(instance) > most:
        yield _error(f"has {len(instance)} entries; at most {most} may be given")


def _unique(_validator: Any, wanted: bool, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, list) and wanted:
        seen: set[str] = set()
        for index, item in enumerate(instance):
            if isinstance(item, str):
                if item in seen:
                    yield _error(f"{shown(item)} stands here twice; remove one", [index])
                seen.add(item)


def _names(validator: Any, schema: Schema, instance: Value, _schema: Schema) -> Found:
    if isinstance(instance, dict):
        for key in instance:
            for error in _into(validator, key, schema):
                yield _key_error(error.message, key)


def _one_of(validator: Any, branches: Sequence[Schema], instance: Value, schema: Schema) -> Found:
    branch = branch_of(instance, schema)
    if branch is not None:
        yield from _into(validator, instance, branch)
        return
    key = schema.get("x-choose")
    if key is not None and isinstance(instance, dict):
        choices = [resolved(each)["properties"][key]["const"] for each in branches]
        given = instance.get(key)
        if key not in instance:
            yield _error(f"`{key}` is missing; choose {', '.join(choices)}")
        elif isinstance(given, str):
            yield _error(
                _joined(f"{shown(given)} is not one of the choices", _choices(given, choices)), [key]
            )
        else:
            yield _error(f"is {_kinds(type_of(given))}, and must be one of {', '.join(choices)}", [key])
        return
    types = ["object"] if key is not None else list(dict.fromkeys(_types(branches)))
    yield _error(f"is {_kinds(type_of(instance))}, and must be {_kinds(types)}")


def _types(branches: Sequence[Schema]) -> Iterator[str]:
    for each in branches:
        branch = resolved(each)
        if "oneOf" in branch:
            yield from _types(branch["oneOf"])
        elif isinstance(branch["type"], str):
            if branch["type"] != "null":
                yield branch["type"]
        else:
            yield from branch["type"]


_KEYWORDS: dict[str, Callable[..., Found]] = {
    "$ref": _ref,
    "type": _type,
    "properties": _properties,
    "items": _items,
    "additionalProperties": _additional,
    "required": _required,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "minLength": _min_length,
    "maxLength": _max_length,
    "minItems": _min_items,
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
    "uniqueItems": _unique,
    "propertyNames": _names,
    "oneOf": _one_of,
}
_Validator: Any = cast(Callable[..., Any], extend)(Draft202012Validator, _KEYWORDS)


class Violation(NamedTuple):
    path: Path
    message: str
    of_key: bool
    """Whether the key at the end of the path is wrong, and not its value."""


def violations(data: Value, schema: Schema) -> Iterator[Violation]:
    """Everything in `data` that `schema` forbids."""
    for error in _Validator(schema).iter_errors(data):
        yield Violation(tuple(error.absolute_path), error.message, error.validator == _OF_KEY)
