"""Agents of earlier versions, for tests that run them against the primary of today.

Each is a wheel of the package `agent` as it was at a commit, kept here because a checkout need not have its
history. `python3 -m tests.older_agents COMMIT` makes one; it is named after the newest version of the
protocol that it speaks (2 is of commit 6ff6d4f, 3 of 660b8c4). What it imports besides itself is this
environment's.
"""

import re
import subprocess
import zipfile
from pathlib import Path
from typing import Final

from tests.agentprocess import ROOT, agent_environment

HERE: Final = Path(__file__).resolve().parent


def install(protocol: int, into: Path) -> dict[str, str]:
    """Install the agent that speaks no newer version than this; the environment in which `-m agent` is it."""
    with zipfile.ZipFile(HERE / f"trueup-{_version(protocol)}-py3-none-any.whl") as wheel:
        wheel.extractall(into)
    return agent_environment() | {"PYTHONPATH": str(into)}


def make(commit: str) -> Path:
    """Write the wheel of the agent as it was at a commit of this repository."""
    from reconciler.install.wheels import pack_wheel

    names = _git("ls-tree", "-r", "--name-only", commit, "agent").decode().split()
    files = {name: _git("show", f"{commit}:{name}") for name in names}
    found = re.search(rb"^PROTOCOL_VERSIONS = \((\d+)", files["agent/wire/messages.py"], re.MULTILINE)
    assert found is not None, f"{commit} has no agent that says what it speaks"
    version = _version(int(found[1]))
    info = f"trueup-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: trueup\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = HERE / f"trueup-{version}-py3-none-any.whl"
    path.write_bytes(pack_wheel(files, info))
    return path


def _version(protocol: int) -> str:
    return f"0.1.0+protocol.{protocol}"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, cwd=ROOT).stdout
