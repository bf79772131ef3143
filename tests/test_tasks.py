"""The checkout's own commands: they start on a bare Python, and offer invoke what `trueup` offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from reconciler.cli import cli

ROOT = Path(__file__).parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def verbs(commands: Mapping[str, click.Command], lead: str = "") -> Iterator[str]:
    for name, command in commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command.commands, f"{lead}{name}-")
        else:
            yield lead + name


def test_a_python_without_any_library_lists_the_verbs() -> None:
    # -I and -S: neither installed packages nor the environment, as on a bare machine.
    result = run(sys.executable, "-I", "-S", "tasks.py", "--help")
    assert result.returncode == 0, result.stderr
    for verb in ("demo", "test", "ci", "bench"):
        assert f"\n  {verb} " in result.stdout


def test_an_unknown_verb_is_answered_with_the_known_ones() -> None:
    result = run(sys.executable, "-I", "-S", "tasks.py", "demonstrate")
    assert result.returncode == 2
    assert "invalid choice: 'demonstrate'" in result.stderr
    assert "Traceback" not in result.stderr


def test_invoke_has_trueups_verbs_and_the_benchmark() -> None:
    result = run(sys.executable, "-m", "invoke", "--list", "--list-format=flat")
    assert result.returncode == 0, result.stderr
    listed = {
        line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ") and line[2] != " "
    }
    assert listed == {*verbs(cli.commands), "bench"}


def test_invoke_hands_on_what_the_benchmark_is_asked_for() -> None:
    result = run(sys.executable, "-m", "invoke", "bench", "--quick", "--only=small", "--only=nothing-such")
    assert result.returncode == 2
    assert "invalid choice: 'nothing-such'" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_exit_code_comes_through_invoke() -> None:
    result = run(sys.executable, "-m", "invoke", "validate", "--spec=/nowhere/trueup.yaml")
    direct = run(sys.executable, "-m", "reconciler", "validate", "/nowhere/trueup.yaml")
    assert direct.returncode != 0
    assert (result.returncode, result.stderr) == (direct.returncode, direct.stderr)
