"""Whether the file system that a target was placed on is still there.

A disk that is not mounted leaves an empty directory behind, and to fill that would fill another disk.
"""

from collections.abc import Sequence
from pathlib import Path

import trio

from agent.failures import TaskFailed
from agent.manifest import Identity, Manifest
from agent.target import Target, check_target


async def check_mounted(path: str, roots: Sequence[str], target: Target | None, placed: Identity) -> None:
    """Raises TaskFailed where nothing is left of what was placed, and its place is on another device.

    `placed` is the directory that it was placed in. One that was emptied on the same device is filled again,
    and so is one that holds anything, whatever it is on.
    """
    await trio.to_thread.run_sync(_check, path, roots, target, placed[0])


async def check_placed(
    path: str, roots: Sequence[str], target: Target | None, manifest: Manifest | None
) -> None:
    """As `check_mounted`, where there is a manifest of something."""
    if manifest is not None and manifest.placed:
        await check_mounted(path, roots, target, manifest.root)


def _check(path: str, roots: Sequence[str], target: Target | None, device: int) -> None:
    if target is not None and not target.is_empty():
        return
    if device == (target.identity[0] if target is not None else _device_above(path, roots)):
        return
    raise TaskFailed(
        "TargetVanished",
        f"nothing is left of what was placed in {path!r}, and another file system is there now",
        hint="mount it; if it is to be filled anew, put an empty file there",
    )


def _device_above(path: str, roots: Sequence[str]) -> int:
    """Of the nearest directory above a target that is there; nothing is opened."""
    root, names = check_target(path, roots)
    above = Path(root)
    device = above.stat().st_dev
    for name in names:
        above /= name
        try:
            device = above.lstat().st_dev
        except FileNotFoundError:
            break
    return device
