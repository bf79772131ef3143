"""The agent runs with its own four dependencies and nothing else of this project installed.

The environment is made from what is installed here: a fresh virtual environment without pip, into which the
distributions that `requirements/agent.lock` names and the package `agent` are copied; no network is needed.
`python3 tasks.py agent-alone` runs the same tests against a real installation of the wheel instead, and
names its Python in TRUEUP_TEST_AGENT_PYTHON.
"""

from __future__ import annotations

import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import agent

ROOT = Path(__file__).parent.parent
NOT_INSTALLED = ("reconciler", "pytest", "yaml", "click", "structlog", "invoke")


def pinned() -> dict[str, str]:
    """Name and version of each distribution in the agent's lock that this platform needs."""
    lines = (ROOT / "requirements/agent.lock").read_text().splitlines()
    found = [re.match(r"([a-z0-9._-]+)==([^ ;]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def copy_distribution(name: str, version: str, site_packages: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    assert distribution.version == version, (
        f"{name}: the lock wants {version}, installed is {distribution.version}"
    )
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


@pytest.fixture(scope="module")
def agent_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the agent alone."""
    if given := os.environ.get("TRUEUP_TEST_AGENT_PYTHON"):
        return Path(given)
    where = tmp_path_factory.mktemp("agent-alone")
    venv.create(where, symlinks=True, with_pip=False)
    site_packages = where / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name, version in pinned().items():
        copy_distribution(name, version, site_packages)
    package = Path(agent.__file__).parent
    shutil.copytree(package, site_packages / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    return where / "bin/python"


def run(python: Path, *arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    # -I: neither the working directory nor PYTHONPATH lends it what is not installed.
    return subprocess.run(
        [str(python), "-I", *arguments], cwd=where, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_environment_holds_nothing_else(agent_python: Path, tmp_path: Path) -> None:
    program = f"import importlib.util as u; print([n for n in {NOT_INSTALLED} if u.find_spec(n)])"
    if "TRUEUP_TEST_AGENT_PYTHON" in os.environ:  # the wheel has both packages; their dependencies differ
        program = program.replace("'reconciler', ", "")
    result = run(agent_python, "-c", program, where=tmp_path)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_every_module_imports(agent_python: Path, tmp_path: Path) -> None:
    found = [module.name for module in pkgutil.walk_packages(agent.__path__, "agent.")]
    modules = [name for name in found if name != "agent.__main__"]  # which runs the command
    assert "agent.wire.messages" in modules
    program = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    result = run(agent_python, "-W", "error", "-c", program, where=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("verb", [[], ["join"], ["run"], ["status"]], ids=" ".join)
def test_the_command_explains_itself(agent_python: Path, tmp_path: Path, verb: list[str]) -> None:
    program = "import sys; from agent.cli import main; sys.exit(main())"
    result = run(agent_python, "-c", program, *verb, "--help", where=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()


def test_the_other_command_says_what_is_missing(agent_python: Path, tmp_path: Path) -> None:
    """The package brings both commands, and a host has the dependencies of one."""
    program = f"import sys; sys.path.append({str(ROOT)!r}); from reconciler.__main__ import main; main()"
    result = run(agent_python, "-c", program, "plan", where=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: trueup needs \w+, .*pip install '\.\[reconciler\]'\n", result.stderr)
