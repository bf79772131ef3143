"""The search for leaked secrets must find what it is there to find, or its silence means nothing."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.canaries import MARKER, Find, canary, may_hold, search_bytes, search_tree
from tests.processlist import watch_process_list

ROOT = Path(__file__).parent.parent


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A directory whose leaks are made on purpose, so that the run's own search passes it by."""
    return may_hold(tmp_path)


def git(where: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=where, check=True, capture_output=True)


@pytest.mark.parametrize("lead", range(6))
def test_a_value_is_found_at_every_alignment_of_its_encodings(lead: int) -> None:
    value = b"x" * lead + canary("encoded").encode()
    assert search_bytes(value, "") == [Find("", lead, "a canary value")]
    assert [find.what for find in search_bytes(base64.b64encode(value), "")] == ["a canary value in base64"]
    assert [find.what for find in search_bytes(value.hex().encode(), "")] == ["a canary value in hexadecimal"]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"innocent" * 100_000)
    (tmp_path / "link").symlink_to("nowhere")
    assert search_tree(tmp_path) == []


def test_a_value_across_two_chunks_of_a_large_file_is_found(leaky: Path) -> None:
    file = leaky / "large"
    with file.open("wb") as out:
        out.truncate(1 << 40)  # a hole of a tebibyte costs nothing to search
        out.write(b"-" * (8 * 1024 * 1024 - 5))
        out.write(canary("split").encode())
    assert search_tree(leaky) == [Find(str(file), 8 * 1024 * 1024 - 5, "a canary value")]


def test_names_and_link_targets_are_searched(leaky: Path) -> None:
    (leaky / canary("name")).touch()
    (leaky / "link").symlink_to(canary("target"))
    places = {find.place for find in search_tree(leaky)}
    assert places == {str(leaky), str(leaky / "link")}


def test_rows_of_a_database_and_its_journal_are_searched(leaky: Path) -> None:
    database = sqlite3.connect(leaky / "journal.sqlite")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE events (text)")
    database.execute("INSERT INTO events VALUES (?)", (canary("row"),))
    database.commit()
    found = {Path(find.place).name for find in search_tree(leaky)}
    database.close()
    assert found == {"journal.sqlite-wal"}
    assert {Path(find.place).name for find in search_tree(leaky)} == {"journal.sqlite"}


@pytest.mark.parametrize("packed", [False, True])
def test_git_objects_are_searched(leaky: Path, packed: bool) -> None:
    git(leaky, "init", "-q", "repository")
    work = leaky / "repository"
    for round_number in range(2):
        (work / "status.yaml").write_text("line\n" * 5000 + canary("committed") * round_number)
        git(work, "add", "status.yaml")
        git(work, "commit", "-q", "-m", "change")
    (work / "status.yaml").unlink()
    assert search_tree(leaky) != []
    if packed:
        git(work, "gc", "-q")
    assert {find.what for find in search_tree(leaky)} == {"a canary value"}


def test_what_may_hold_secrets_is_left_out(leaky: Path) -> None:
    (leaky / "target").mkdir()
    (leaky / "target" / ".env").write_text(canary("delivered"))
    (leaky / "log").write_text(canary("leaked"))
    assert len(search_tree(leaky)) == 2
    assert [find.place for find in search_tree(leaky, allowed=[leaky / "target"])] == [str(leaky / "log")]


def test_a_file_without_read_permission_is_searched(leaky: Path) -> None:
    (leaky / "closed").write_text(canary("closed"))
    (leaky / "closed").chmod(0)
    assert len(search_tree(leaky)) == 1


def test_the_process_list_shows_a_secret_argument() -> None:
    program = "import sys; sys.stdin.read()"
    command = [sys.executable, "-c", program, canary("argument")]
    with (
        pytest.raises(AssertionError, match=r"process list.*<canary>") as caught,
        watch_process_list() as seen,
        subprocess.Popen(command, stdin=subprocess.PIPE),
    ):
        seen.look()
    assert tuple(command) in seen.commands
    assert canary("argument") not in str(caught.value)


LEAKS = """
import subprocess, tempfile
from tests.canaries import canary, may_hold

def test_input(tmp_path): may_hold(tmp_path / ".env").write_text(canary("input"))
def test_file(tmp_path): (tmp_path / "leaked.log").write_text(canary("file"))
def test_temporary_file(): tempfile.mkstemp(prefix=canary("temporary"))
def test_printed(): print(canary("printed"))
def test_child(): subprocess.run(["echo", canary("child")])
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_run_that_leaks_fails(leaky: Path, workers: list[str]) -> None:
    result = run_pytest(leaky, LEAKS, workers)
    assert result.returncode == 1, result.stdout
    assert "5 passed, 1 error" in result.stdout
    for place in ("leaked.log at byte 0", "a canary value in a name", "test_printed (", "test_child ("):
        assert place in result.stdout
    assert ".env" not in result.stdout
    assert MARKER not in result.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_run_that_keeps_its_secrets_passes(leaky: Path, workers: list[str]) -> None:
    result = run_pytest(leaky, LEAKS.partition("def test_file")[0], workers)
    assert result.returncode == 0, result.stdout


def run_pytest(where: Path, tests: str, workers: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests, in a process of their own, under this suite's conftest."""
    (where / "test_nested.py").write_text(tests)
    places = [f"--rootdir={ROOT}", f"--confcutdir={where}", f"--basetemp={where / 'run'}"]
    options = ["-q", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *places, *workers, str(where / "test_nested.py")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
        timeout=120,
    )
