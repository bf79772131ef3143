"""Releases for tests of an agent: two trees, a task that releases one, and what stands on the host then."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.agent.syncing import Host, Outcome, Tree, read_tree, synchronise, write_tree

ONE: Tree = {"index": b"one", "lib/a": b"a" * 1000, "lib/b": b"b", "none": None, "link": "lib/a"}
TWO: Tree = {"index": b"two", "lib/a": b"a" * 1000, "fresh": b"f", "link": "index"}


def trees(base: Path, *trees: Mapping[str, object]) -> list[Path]:
    return [write_tree(base / f"source{number}", tree) for number, tree in enumerate(trees, 1)]


async def release(source: Path, host: Host, **changes: Any) -> Outcome:
    """One task with that strategy."""
    return await synchronise(source, host, strategy="release", **changes)


def current(host: Host) -> Tree:
    """What stands where `current` leads."""
    return read_tree((host.target / "current").resolve(strict=True))


def names(host: Host) -> list[str]:
    """Of the directories below `releases`."""
    return sorted(os.listdir(host.target / "releases"))
