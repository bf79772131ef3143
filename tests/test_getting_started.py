"""The tour of docs/getting-started.md, tried as a new user would: every command on the page, as it stands."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

PAGE = Path(__file__).parent.parent / "docs/getting-started.md"
PATIENCE = 300
"""Seconds for the whole tour; only a hang gets there."""


def blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def ports() -> dict[str, str]:
    """Ports that are free here for those that the page names."""
    named = ("8000", "9000", "9001")
    return dict(zip(named, map(str, free_ports(len(named))), strict=True))


def test_the_page_has_nothing_that_is_not_run() -> None:
    fences = re.findall(r"^```(\w*)$", PAGE.read_text(), flags=re.MULTILINE)
    assert set(fences) == {"bash", ""} and fences.count("bash") == len(blocks())
    # The first block alone is not run: it fetches from an index what the environment of the tests has.
    assert blocks()[0].splitlines() == [
        "python3 -m venv ~/tour/venv",
        "~/tour/venv/bin/pip install --quiet '.[reconciler]'",
    ]
    prose = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    assert not re.search(r"^    \S", prose, re.MULTILINE)


def test_the_tour(tmp_path: Path, ports: dict[str, str]) -> None:
    script = "\n".join(blocks()[1:])
    for named, free in ports.items():
        script = re.sub(rf"\b{named}\b", free, script)
    installed = tmp_path / "tour/venv/bin"
    installed.mkdir(parents=True)
    for name in ("trueup", "trueup-agent", "python3"):
        (installed / name).symlink_to(Path(sys.executable).with_name(name))
    before, last = script.rsplit("\nkill ", 1)
    # Looked at before the tour deletes all that it made.
    looked = "cp -r www/index.html host/srv/files/motd.toml serve.log agent.log ~/"
    process = subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail", "-c", f"{before}\n{looked}\nkill {last}"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None or (tmp_path / "tour").exists():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, said[-4000:]
    for expected in (
        "Hello from v0.1.0",
        "nothing to do",
        "Good morning from v0.1.0",
        '"ready":true',
        "paired node laptop",
        'motd = "second"',
    ):
        assert expected in said, said[-4000:]
    assert (tmp_path / "index.html").read_text() == "Good morning from v0.1.0\n"
    assert (tmp_path / "motd.toml").read_text() == 'motd = "second"\n'
    logs = [(tmp_path / name).read_text() for name in ("serve.log", "agent.log")]
    assert "Traceback" not in "".join([said, *logs])
    assert not (tmp_path / "tour").exists()
