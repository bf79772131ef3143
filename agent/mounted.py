"""Whether the file system that a target was placed on is still there.

A disk that is not mounted leaves an empty directory behind. To fill that would fill another disk, and to take
it for what is left of a target would leave on that disk for ever what is to be removed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from agent.failures import TaskFailed
from agent.manifest import Identity, Manifest
from agent.target import Target, check_target
from agent.versions import Releases

_TO_FILL: Final = "mount it; if it is to be filled anew, put an empty file there"
_TO_REMOVE: Final = "mount it; if that disk will not come back, put an empty file there"


async def check_mounted(
    path: str, roots: Sequence[str], target: Target | None, placed: Identity, hint: str = _TO_FILL
) -> None:
    """Raises TaskFailed where nothing is left of what was placed, and its place is on another device.

    `placed` is the directory that it was placed in. One that was emptied on the same device passes, and so
    does one that holds anything, whatever it is on. `hint`: what helps.
    """
    await trio.to_thread.run_sync(_check, path, roots, target, placed[0], hint)


async def check_placed(
    path: str, roots: Sequence[str], target: Target | None, manifest: Manifest | None
) -> None:
    """As `check_mounted`, where there is a manifest of something."""
    if manifest is not None and manifest.placed:
        await check_mounted(path, roots, target, manifest.root)


async def check_removable(
    path: str, roots: Sequence[str], target: Target | None, record: Manifest | Releases
) -> None:
    """As `check_mounted`, where the record has anything that is to be removed.

    What is on a disk that is away for now is not gone, and has to be removed once that is back.
    """
    if _has_any(record):
        await check_mounted(path, roots, target, record.root, _TO_REMOVE)


def _has_any(record: Manifest | Releases) -> bool:
    if isinstance(record, Releases):
        return bool(record.kept) or record.next is not None
    return bool(record.placed or record.pending or record.rendered)


def _check(path: str, roots: Sequence[str], target: Target | None, device: int, hint: str) -> None:
    if target is not None and not target.is_empty():
        return
    if device == (target.identity[0] if target is not None else _device_above(path, roots)):
        return
    raise TaskFailed(
        "TargetVanished",
        f"nothing is left of what was placed in {path!r}, and another file system is there now",
        hint=hint,
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
