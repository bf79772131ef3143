"""File systems of a test's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(where: Path, options: str, *, image: Path | None = None) -> Iterator[None]:
    """A tmpfs with these options of `mount`, or the file system in the image, for the time of the block.

    Skips where none can be had.
    """
    where.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small file system")
    kind = ["-t", "tmpfs"] if image is None else []
    done = subprocess.run(
        ["mount", *kind, "-o", options, str(image or "tmpfs"), str(where)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)
