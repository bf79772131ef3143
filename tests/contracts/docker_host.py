"""A docker for tests: a directory with a command `docker` in it, and what its daemon runs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.canaries import may_hold

REAL = shutil.which("docker") if os.environ.get("TRUEUP_TEST_DOCKER") else None
"""A real docker with a daemon, where TRUEUP_TEST_DOCKER is set."""

_DOUBLE = Path(__file__).with_name("docker_double.py")


@dataclass
class DockerHost:
    """`path` is what a primary's PATH has to be."""

    bin: Path
    state: Path | None
    """Of the double."""

    @property
    def path(self) -> str:
        return f"{self.bin}:{os.environ['PATH']}"

    def take_away(self, what: str) -> None:
        """`compose` or `daemon`."""
        assert self.state is not None
        (self.state / f"no-{what}").touch()

    def give_back(self, what: str) -> None:
        assert self.state is not None
        (self.state / f"no-{what}").unlink()

    def run(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [str(self.bin / "docker"), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": self.path, **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self, project: str, **environment: str) -> list[str]:
        label = f"label=com.docker.compose.project={project}"
        return self.run("ps", "--all", "--filter", label, "--format", "{{.ID}}", **environment).split()

    def variables(self, project: str) -> dict[str, str]:
        """The environment of a project's only container."""
        [id] = self.containers(project)
        entries = json.loads(self.run("inspect", "--format", "{{json .Config.Env}}", id))
        return dict(entry.split("=", 1) for entry in entries)


def double_host(directory: Path) -> DockerHost:
    """A host whose docker is the double. What runs there may hold secrets, as with docker itself."""
    bin, state = directory / "bin", may_hold(directory / "docker")
    for each in (directory, bin, state):
        each.mkdir(exist_ok=True)
    command = bin / "docker"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_DOUBLE}" "{state}" "$@"\n')
    command.chmod(0o755)
    return DockerHost(bin, state)


def real_host(directory: Path) -> DockerHost:
    assert REAL is not None
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    (directory / "bin" / "docker").symlink_to(Path(REAL).resolve())
    return DockerHost(directory / "bin", None)
