"""`docs/security.md` names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py):([a-z0-9_]+)`")


def test_each_test_that_the_table_names_is_there() -> None:
    named = NAMED.findall((ROOT / "docs" / "security.md").read_text())
    assert len(named) > 10
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        there = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in there, f"{path} has no {name}"
