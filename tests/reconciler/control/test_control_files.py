"""Records as files: what is written is read again, and what a person got wrong is told with its place."""

from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from reconciler.control.files import control_schema, parse_record, path_of, render_record
from reconciler.control.records import Kind, Record
from reconciler.errors import ControlUnreadable
from tests.reconciler.control.records import EACH

PATH = "records/000001.yaml"
HOLD = "version: 1\nkind: hold\nby: Anna <anna@example.org>\nat: 2026-03-01T12:00:00Z\n"
"""As a person writes it, the environment missing."""
WHOLE = f"{HOLD}environment: production\n"


@pytest.mark.parametrize("given", EACH, ids=lambda each: str(each.kind))
def test_what_is_written_is_read_again_and_fits_the_schema(given: Record) -> None:
    content = render_record(given)
    assert parse_record(path_of(given.number), content) == given
    assert Draft202012Validator(control_schema()).is_valid(yaml.safe_load(content))


def test_there_is_a_branch_of_the_schema_for_each_kind() -> None:
    kinds = [branch["properties"]["kind"]["const"] for branch in control_schema()["oneOf"]]
    assert sorted(kinds) == sorted(get_args(Kind)) == sorted(each.kind for each in EACH)


def test_a_record_by_hand_needs_no_quotes() -> None:
    found = parse_record("records/000007.yaml", f"{HOLD}environment: production\n".encode())
    assert (found.number, found.kind, found.environment, found.at.year) == (7, "hold", "production", 2026)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HOLD, "records/000001.yaml:1:1: `environment` is missing; it is needed here"),
        (
            f"{HOLD}enviroment: production\n",
            "records/000001.yaml:5:1: enviroment: unknown key `enviroment`; did you mean `environment`?",
        ),
        (f"{HOLD}environment: production\nresource: services/web\n", "unknown key `resource`"),
        (HOLD.replace("hold", "hodl"), "`hodl` is not one of the choices; did you mean `hold`?"),
        (f"{HOLD}environment: ''\n", "may not be empty"),
        (WHOLE.replace("12:00:00Z", "12:00"), "write a time with its zone"),
        (WHOLE.replace("Anna <anna@example.org>", "Anna"), "write it as Name <email>"),
        (WHOLE.replace("version: 1", "version: 2"), "and must be 1"),
        (f"{HOLD}environment: a\nenvironment: b\n", "`environment` stands here twice"),
        (f"{HOLD}number: 3\nenvironment: a\n", "unknown key `number`"),
        ("- hold\n", "does not hold a map"),
        ("kind: [", "not valid YAML"),
        (HOLD.replace("2026-03-01", "2026-13-41") + "environment: a\n", "Invalid RFC3339"),
        (f"{HOLD}environment: a\nreason: {'x' * (64 << 10)}\n", "more than the 65536 of a record"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ControlUnreadable) as caught:
        parse_record(PATH, text.encode())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "path", ["records/1.yaml", "records/000000.yaml", "000001.yaml", "records/000001.yml"]
)
def test_a_path_that_no_record_has_is_refused(path: str) -> None:
    with pytest.raises(ControlUnreadable, match="is not the path of an operator's record"):
        parse_record(path, HOLD.encode())
