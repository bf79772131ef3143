"""What a command imports when it runs can be imported by itself: no other module has to have come before.

Most tests of commands fork a process that has imported everything, which would hide it.
"""

import ast
import subprocess
import sys
from pathlib import Path

from tests.agentprocess import ROOT

EACH_ALONE = """\
import os, sys, traceback
import click, cryptography.x509, msgspec, pathspec, structlog, trio

failed = []
for name in sys.argv[1:]:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            __import__(name)
        except BaseException:
            print(f"{name} alone:", traceback.format_exc())
            sys.stdout.flush()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print("cannot be imported alone:", *failed)
"""
"""For a bare interpreter, which forks for each module. What is not ours and nearly all need comes first: it
takes most of the time, and cannot hide what one module of ours needs of another."""


def imported_by_commands() -> list[str]:
    """Our modules that are imported inside a function of a module of the command line."""
    found: set[str] = set()
    for path in sorted(ROOT.glob("reconciler/cli*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found.update(name for node in ast.walk(function) for name in _modules(node))
    return sorted(found)


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        folder = ROOT.joinpath(*node.module.split("."))
        within = [each.name for each in node.names if (folder / f"{each.name}.py").exists()]
        names = [node.module, *(f"{node.module}.{name}" for name in within)]
    elif isinstance(node, ast.Import):
        names = [each.name for each in node.names]
    else:
        names = []
    return [name for name in names if name.partition(".")[0] in ("agent", "reconciler", "schema")]


def alone(names: list[str], where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", EACH_ALONE, *names], capture_output=True, text=True, check=True, cwd=where
    )


def test_what_commands_import_can_be_imported_alone() -> None:
    names = imported_by_commands()
    assert len(names) > 40
    assert {"reconciler.control.orders", "reconciler.primary", "reconciler.serve"} <= set(names)
    done = alone(names)
    assert done.stdout == "cannot be imported alone:\n", done.stdout


def test_a_module_that_needs_another_first_is_found(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("from second import two\none = 1\n")
    (tmp_path / "second.py").write_text("from first import one\ntwo = 2\n")
    (tmp_path / "third.py").write_text("")
    said = alone(["third", "first", "second"], tmp_path).stdout
    assert said.endswith("cannot be imported alone: first second\n")
    assert "cannot import name" in said
