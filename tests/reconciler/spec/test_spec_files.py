"""A spec of several files: which are included, how they add up, and reading them from a directory."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from reconciler.cli import cli
from reconciler.errors import SpecInvalid
from reconciler.spec.files import read_spec_files
from reconciler.spec.load import SPEC_FILE, included_paths, load
from tests.reconciler.spec.documents import BASE, loaded, valid


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("[services/*.yaml]", ["services/a.yaml", "services/b.yaml"]),
        ('["services/**"]', ["services/a.yaml", "services/b.yaml", "services/deep/c.yaml", "services/x.txt"]),
        ('["**/c.yaml"]', ["services/deep/c.yaml"]),
        ('["**/*.yaml"]', ["a.yaml", "services/a.yaml", "services/b.yaml", "services/deep/c.yaml"]),
        ("[services/?.yaml, services/a.yaml]", ["services/a.yaml", "services/b.yaml"]),
        ("[trueup.yaml]", []),
        ("[../a.yaml, /a.yaml, ./a.yaml, 3]", []),
        ("a.yaml", []),
        ("[a.yaml", []),
        ('["[a].yaml", "(a).yaml", "a.yam."]', []),
    ],
)
def test_includes_are_globs_from_the_root(patterns: str, expected: list[str]) -> None:
    tree = [
        "trueup.yaml",
        "a.yaml",
        "services/a.yaml",
        "services/b.yaml",
        "services/deep/c.yaml",
        "services/x.txt",
    ]
    assert included_paths(f"version: 1\ninclude: {patterns}\n".encode(), tree) == tuple(expected)


def test_a_hostile_glob_takes_no_time() -> None:
    path = "a" * 2000
    for pattern in ("*a" * 300 + "b", "**/" * 300 + "b", "*" * 1000 + "b", "**/*a" * 100 + "b"):
        assert included_paths(f'include: ["{pattern}"]'.encode(), [path, "a/" * 1000 + "a"]) == ()


def test_included_files_add_to_the_sections_of_the_root() -> None:
    text = BASE.replace("version: 1", "version: 1\ninclude: [a.yaml, b.yaml]") + "services:\n"
    a = (
        "services: {one: {repository: app, deploy: {kind: manual}, environments: [staging]}}\n"
        "moved: [{from: services/x, to: services/one}]\n"
    )
    b = (
        "services: {two: {repository: app, deploy: {kind: manual}, environments: [staging]}}\n"
        "moved: [{from: services/y, to: services/two}]\n"
    )
    spec = valid(text, a=a, b=b)
    assert [each.name for each in spec.services] == ["one", "two"]
    assert [each.old for each in spec.moved] == ["services/x", "services/y"]


def test_a_name_in_two_files_names_both_places() -> None:
    one = "\n\nservices:\n  web: {repository: app, deploy: {kind: manual}, environments: [staging]}\n"
    result = loaded(BASE.replace("version: 1", "version: 1\ninclude: [a.yaml, b.yaml]"), a=one, b=one)
    [problem] = result.problems
    assert str(problem) == "b.yaml:4:3: services.web: is defined in a.yaml:4 too; rename or remove one"
    assert list(result.frozen) == ["services/web"]


@pytest.mark.parametrize("key", ["version: 1", "include: [b.yaml]", "limits: {}"])
def test_some_keys_stand_in_the_root_file_only(key: str) -> None:
    result = loaded("version: 1\ninclude: [a.yaml]\n", a=key + "\n")
    assert [str(each) for each in result.problems] == [
        f"a.yaml:1:1: {key.partition(':')[0]}: may stand in the root file only; move it there"
    ]
    assert result.spec is None


def test_an_unreadable_included_file_makes_the_document_unusable_and_all_are_told() -> None:
    result = loaded("version: 1\ninclude: [a.yaml, b.yaml, c.yaml]\n", a="a: [", b="- x\n", c="")
    assert result.spec is None
    assert [each.file for each in result.problems] == ["a.yaml", "b.yaml"]


def test_the_files_have_one_size_limit_together() -> None:
    files = {f"{n}.yaml": b"#" * (1 << 20) for n in range(4)}
    result = load({SPEC_FILE: b"version: 1\ninclude: ['*.yaml']\n", **files})
    assert [str(each) for each in result.problems] == [
        "3.yaml:1:1: the spec's files are larger than 4 MiB together; make them smaller"
    ]


def test_the_files_have_one_budget_of_values_together() -> None:
    many = ("moved: [" + "a, " * 200_000 + "]").encode()
    result = load({SPEC_FILE: b"version: 1\ninclude: ['*.yaml']\n", "a.yaml": many, "b.yaml": many})
    assert result.spec is None
    assert "more than 250000 values" in str(result.problems[0])


# --- from a directory, as `trueup validate` reads it --------------------------------------------

INCLUDING = b"version: 1\ninclude: [parts/*.yaml]\n"


def test_problems_name_the_file_that_was_given(tmp_path: Path) -> None:
    spec = tmp_path / "other.yaml"
    spec.write_text("version: 1\nservcies: {}\n")
    result = CliRunner().invoke(cli, ["validate", str(spec)])
    assert isinstance(result.exception, SpecInvalid)
    [problem] = result.exception.problems
    assert str(problem).startswith("other.yaml:2:1: servcies: unknown key")


def test_included_files_are_found_beside_a_file_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_bytes(b"environments: {staging: {}}\n")
    (tmp_path / "other.yaml").write_bytes(INCLUDING)
    assert read_spec_files(tmp_path / "other.yaml") == {
        "other.yaml": INCLUDING,
        "parts/a.yaml": b"environments: {staging: {}}\n",
    }


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("environments: {staging: {}}\n")
    spec = tmp_path / "spec"
    (spec / "parts").mkdir(parents=True)
    (spec / "trueup.yaml").write_bytes(INCLUDING)
    (spec / "parts" / "a.yaml").symlink_to(tmp_path / "outside.yaml")
    assert read_spec_files(spec) == {"trueup.yaml": INCLUDING}
