"""Paths of the spec in a checkout: what they name lies in the repository, wherever links lead."""

from collections.abc import Callable
from pathlib import Path

from reconciler.deploy.request import TaskFailed

Failed = Callable[..., TaskFailed]
"""Makes the error from a message, and maybe a `hint`."""


def inside(root: Path, start: Path, path: str, what: str, failed: Failed) -> Path:
    """Where `path` leads from `start`; `root` and `start` are resolved. Raises what `failed` makes."""
    found = (start / path).resolve()
    if not found.is_relative_to(root):
        raise failed(f"{what} {path!r} leads out of the repository")
    return found


def directory_inside(root: Path, path: str, what: str, at: str, failed: Failed) -> Path:
    """The same for a directory that has to be there; `at` says where, such as ` at v1.0.0`."""
    found = inside(root, root, path, what, failed)
    if not found.is_dir():
        raise failed(
            f"{what} {path!r} is not a directory in the repository{at}",
            hint="paths start at the root of the repository",
        )
    return found
