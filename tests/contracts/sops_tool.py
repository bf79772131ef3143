"""A sops for tests: a directory with a command `sops` in it, and a key that it encrypts for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage

from reconciler.secrets.credentials import Credentials
from reconciler.secrets.sops import SopsSource
from reconciler.secrets.source import RepositoryFiles, SourceContext
from reconciler.spec.model import SecretSource, SopsSettings
from reconciler.spec.secret_model import SOPS_TYPES
from tests.canaries import may_hold

REAL = os.environ.get("TRUEUP_TEST_SOPS") or shutil.which("sops")
"""A real sops, where there is one: named by the variable, or installed."""

_DOUBLE = Path(__file__).with_name("sops_double.py")


def double_in(directory: Path) -> Path:
    """A directory whose `sops` is the double."""
    return script_in(directory, f'exec "{sys.executable}" "{_DOUBLE}" "$@"')


def script_in(directory: Path, script: str) -> Path:
    """A directory whose `sops` is a shell script, which may hold what it prints."""
    directory.mkdir(exist_ok=True)
    command = may_hold(directory / "sops")
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return directory


def real_in(directory: Path) -> Path:
    """A directory whose `sops` is the real one."""
    assert REAL is not None
    directory.mkdir(exist_ok=True)
    (directory / "sops").symlink_to(Path(REAL).absolute())
    return directory


@dataclass
class Sops:
    """`environ` is what a primary has that finds this sops and its key."""

    directory: Path
    home: Path
    key: Any = field(default_factory=pyrage.x25519.Identity.generate)

    @property
    def environ(self) -> dict[str, str]:
        path = f"{self.directory}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.home), "SOPS_AGE_KEY": str(self.key)}

    def encrypt(self, name: str, text: str) -> bytes:
        """The encrypted form of a file of that name; the plain text goes through a pipe."""
        kind = SOPS_TYPES[Path(name).suffix]
        options = ["--age", str(self.key.to_public()), "--input-type", kind, "--output-type", kind]
        done = subprocess.run(
            [str(self.directory / "sops"), "encrypt", *options, "/dev/stdin"],
            input=text.encode(),
            capture_output=True,
            cwd=self.home,
            env=self.environ,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def source(
        self,
        file: Path | str,
        *,
        repository: str | None = None,
        files: RepositoryFiles | None = None,
        environ: Mapping[str, str] = {},
    ) -> SopsSource:
        """`environ`: more variables of the primary, or others."""
        settings = SopsSettings(file=str(file), repository=repository)
        context = SourceContext(Credentials({**self.environ, **environ}), files=files)
        return SopsSource(SecretSource(name="sopsed", kind="sops", settings=settings), context)
