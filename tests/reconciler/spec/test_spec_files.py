"""A spec read from a directory, as `trueup validate` does."""

from pathlib import Path

from click.testing import CliRunner

from reconciler.cli import cli
from reconciler.errors import SpecInvalid
from reconciler.spec.files import read_spec_files

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
