"""Files that belong to users and groups of Debian: gives them away, and says whose they are."""

import grp
import os
import pwd
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from agent.compare import Remembered, compare
from agent.manifest import manifest_path
from agent.wire.messages import TaskReport
from tests.agent.syncing import Host, Tree, observe, write_tree

TREE: Tree = {
    "bin": None,
    "data": None,
    "bin/run": b"#!/bin/sh\n",
    "data/a": b"a" * 300,
    "data/b": b"b",
    "empty": None,
    "link": "data/a",
}
ROOT = (0, 0)
NAMES = ("daemon", "nobody", "nogroup")


@cache
def daemon() -> tuple[int, int]:
    return pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid


@cache
def nobody() -> tuple[int, int]:
    return pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid


def _hindrance() -> str:
    """Why nothing can be given away here; empty where it can."""
    if os.geteuid() != 0:
        return "only root may give files away"
    try:
        daemon(), nobody()
    except KeyError as error:
        return f"this system lacks a user or group of Debian: {error.args[0]}"
    return ""


NEEDS_ROOT_AND_USERS = pytest.mark.skipif(bool(_hindrance()), reason=_hindrance())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """One that allows each of `NAMES`."""
    host = Host(tmp_path / "host")
    host.allow(owners=NAMES)
    return host


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """`TREE`, some of which belongs to others than root, with a mode of its own where it is run."""
    root = write_tree(tmp_path / "source", TREE)
    (root / "bin/run").chmod(0o751)
    give(root, {"bin": daemon(), "bin/run": (daemon()[0], nobody()[1]), "data/a": nobody(), "link": daemon()})
    return root


def give(root: Path, owners: Mapping[str, tuple[int, int]]) -> None:
    """Give each path away, by user and group ID: a symlink itself, not what it leads to."""
    for path, (uid, gid) in owners.items():
        os.chown(root / path, uid, gid, follow_symlinks=False)


def owners(root: Path) -> dict[str, tuple[int, int]]:
    """The user and group ID of all below a directory."""
    found = {str(path.relative_to(root)): path.lstat() for path in sorted(root.rglob("*"))}
    return {path: (status.st_uid, status.st_gid) for path, status in found.items()}


def is_silent(messages: list[str]) -> bool:
    """Whether an agent had nothing to say but its report."""
    return messages == ["TaskReport"]


async def look_closely(host: Host) -> TaskReport:
    """A look that remembers nothing of the one before."""
    for look in (host.state / "targets").glob("*.look"):
        look.unlink()
    return await observe(host)


async def drifted(host: Host) -> int | None:
    """How many entries are other ones than what was placed; None where nobody can say now."""
    record = manifest_path(host.state, str(host.target))
    found = await compare(record, rules=host.rules, state_dir=host.state, memory=Remembered())
    return found.count if found is not None else None
