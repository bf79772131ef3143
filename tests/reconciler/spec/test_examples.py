"""The examples, the starter and the schema that all of them are written against."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.observation import Setback
from reconciler.spec.load import SPEC_FILE, included_paths, load, load_or_raise
from reconciler.spec.model import Spec
from reconciler.spec.schema import spec_schema
from reconciler.spec.starter import starter_spec
from reconciler.unbuilt import unbuilt_in_service

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir() if (path / SPEC_FILE).is_file())


def example_files(name: str) -> dict[str, bytes]:
    directory = ROOT / "examples" / name
    every = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    root = (directory / SPEC_FILE).read_bytes()
    wanted = (SPEC_FILE, *included_paths(root, every))
    return {path: (directory / path).read_bytes() for path in wanted}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid(name: str) -> None:
    assert load(example_files(name)).problems == ()


@pytest.mark.parametrize("name", ["minimal", "compose-two-hosts"])
def test_an_example_that_people_copy_needs_nothing_that_is_not_built(name: str) -> None:
    assert unbuilt_parts(load_or_raise(example_files(name))) == set()


def unbuilt_parts(spec: Spec) -> set[Setback | None]:
    return {*map(unbuilt_in_service, spec.services)} - {None}


def test_the_examples_are_the_three_that_the_docs_name() -> None:
    assert EXAMPLES == ["compose-two-hosts", "full", "minimal"]


def test_the_full_example_has_every_section_and_every_kind() -> None:
    spec = load_or_raise(example_files("full"))
    text = b"\n".join(example_files("full").values()).decode()
    for section in spec_schema()["properties"]:
        assert re.search(rf"^{section}:", text, re.MULTILINE), section
    kinds = {source.kind for source in spec.secret_sources.values()}
    branches = [*spec_schema()["$defs"]["secret_source"]["oneOf"]]
    assert kinds == {branch["properties"]["kind"]["const"] for branch in branches}
    deploys = {type(service.deploy).__struct_config__.tag for service in spec.services}
    branches = spec_schema()["$defs"]["deploy"]["oneOf"]
    assert deploys == {branch["properties"]["kind"]["const"] for branch in branches}


def test_the_full_example_names_every_key_of_a_sync() -> None:
    text = b"\n".join(example_files("full").values()).decode()
    for definition in ("sync", "sync_node", "file", "project", "environment", "node", "secret_target"):
        for key in spec_schema()["$defs"][definition]["properties"]:
            assert re.search(rf"[\s{{,]{key}:", text), f"{definition}.{key}"


def test_the_starter_is_valid_as_it_is() -> None:
    spec = load_or_raise({SPEC_FILE: starter_spec().encode()})
    assert list(spec.environments) == ["staging"]


def test_the_starter_is_valid_with_all_its_examples_taken_over() -> None:
    first, *others = starter_spec().splitlines()
    text = "\n".join([first, *(re.sub(r"^# ?(?!#)", "", line) for line in others)])
    loaded = load({SPEC_FILE: text.encode(), "services/none.yaml": b"services: {}\n"})
    assert loaded.problems == ()
    assert loaded.spec is not None
    assert {service.name for service in loaded.spec.services} == {"api"}
    assert list(loaded.spec.projects) == ["site"]
    assert unbuilt_parts(loaded.spec) == set()


# --- the schema --------------------------------------------------------------------------------


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema that stands for a value, with where it is."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for holder in ("properties", "$defs"):
        for name, each in schema.get(holder, {}).items():
            yield from subschemas(each, f"{path}/{holder}/{name}")
    for holder in ("items", "additionalProperties"):
        yield from subschemas(schema.get(holder), f"{path}/{holder}")
    for index, each in enumerate(schema.get("oneOf", ())):
        yield from subschemas(each, f"{path}/oneOf/{index}")


ALL = list(subschemas(spec_schema()))


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(spec_schema())


def test_every_field_has_a_title_and_a_description() -> None:
    fields = [
        (f"{path}/properties/{name}", each)
        for path, schema in ALL
        for name, each in schema.get("properties", {}).items()
    ]
    assert len(fields) > 150
    definitions = [(name, each) for name, each in spec_schema()["$defs"].items()]
    for path, each in [*fields, *definitions, ("#", spec_schema())]:
        assert each.get("title"), path
        assert each.get("description"), path


def test_no_map_takes_unknown_keys() -> None:
    for path, schema in ALL:
        if schema.get("type") == "object" or "properties" in schema:
            assert "additionalProperties" in schema, path
            assert schema["additionalProperties"] is not True, path


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    text = json.dumps(spec_schema())
    used = set(re.findall(r'"#/\$defs/([a-z_0-9]+)"', text))
    reached_in_code = {"service_override", "secret_use", "service"}
    assert used <= set(spec_schema()["$defs"])
    assert set(spec_schema()["$defs"]) - used <= reached_in_code


def test_every_default_fits_its_own_field() -> None:
    for path, schema in ALL:
        if "default" in schema:
            whole = {**schema, "$defs": spec_schema()["$defs"]}
            assert list(Draft202012Validator(whole).iter_errors(schema["default"])) == [], path


# --- the reference -----------------------------------------------------------------------------

REFERENCE = (ROOT / "docs" / "spec.md").read_text()


def test_the_reference_names_every_key() -> None:
    for path, schema in ALL:
        for key in schema.get("properties", {}):
            assert re.search(rf"\b{key}\b", REFERENCE), f"{path}: {key}"


def test_the_reference_shows_every_default_of_the_schema() -> None:
    for path, schema in ALL:
        default = schema.get("default")
        if isinstance(default, str | int) and not isinstance(default, bool) and default:
            assert str(default).lower() in REFERENCE.lower(), f"{path}: {default}"


def test_the_defaults_of_the_schema_are_those_of_the_model() -> None:
    """What an editor promises is what an omitted key comes to."""
    root = (ROOT / "examples" / "minimal" / SPEC_FILE).read_text()
    plain = load_or_raise({SPEC_FILE: (root + PROJECT.format(sync="{}")).encode()})
    keys = spec_schema()["$defs"]["sync"]["properties"]
    written = {key: each["default"] for key, each in keys.items() if "default" in each}
    told = load_or_raise({SPEC_FILE: (root + PROJECT.format(sync=json.dumps(written))).encode()})
    assert told.projects == plain.projects
    assert told.hash == plain.hash


PROJECT = "projects: {{site: {{repository: app, branch: main, sync: {sync}}}}}\n"


def test_every_default_of_a_kind_is_what_an_omitted_key_comes_to() -> None:
    for definition, section, base in (
        ("secret_source", "secret_sources", {"infisical": {"project_id": "p", "environment_slug": "e"}}),
        ("deploy", "deploy", {"invoke": {"task": "t"}, "agent": {"project": "site", "command": "c"}}),
    ):
        for branch in spec_schema()["$defs"][definition]["oneOf"]:
            kind = branch["properties"]["kind"]["const"]
            if kind in base:
                needed = {"kind": kind, **base[kind]}
                written = {
                    key: each["default"] for key, each in branch["properties"].items() if "default" in each
                }
                assert meaning(section, needed) == meaning(section, {**needed, **written})


def meaning(section: str, value: dict[str, Any]) -> str:
    document: dict[str, Any] = {
        "version": 1,
        "repositories": {"app": {"url": "git@h:x"}},
        "environments": {"staging": {}},
        "projects": {"site": {"repository": "app", "branch": "main", "sync": {}}},
    }
    if section == "deploy":
        document["services"] = {"web": {"repository": "app", "environments": ["staging"], "deploy": value}}
    else:
        login = {"client_id": {"env": "A"}, "client_secret": {"env": "B"}}
        document[section] = {"x": {**value, **login}}
    return load_or_raise({SPEC_FILE: json.dumps(document).encode()}).hash
