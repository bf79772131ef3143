"""A directory that a project is synced from, and what a look at it found or was kept from."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from reconciler.directories import Directories, DirectoryLook, Looks
from reconciler.observation import Setback
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from tests.reconciler.facts import HEAD

EVERYTHING: tuple[str, tuple[str, ...], tuple[str, ...]] = ("site", (), ())
WITHOUT_MAPS: tuple[str, tuple[str, ...], tuple[str, ...]] = ("site", (), ("*.map",))


def spec_of(directory: Path | str, sync: str = "", rest: str = "", exclude: str = "*.map") -> Spec:
    nodes = (
        "[{node_id: web-1, target_path: /srv/a},"
        f" {{node_id: web-1, target_path: /srv/b, exclude: ['{exclude}']}}]"
    )
    text = (
        f"{HEAD}projects: {{site: {{source: {{directory: {directory}}}, {rest}"
        f" sync: {{{sync} nodes: {nodes}}}}}}}\n"
    )
    return load_or_raise({SPEC_FILE: text.encode()})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    (directory / "css").mkdir(parents=True)
    (directory / "index.html").write_text("hello\n")
    (directory / "css/a.css").write_text("a {}\n")
    (directory / "css/a.map").write_text("map\n")
    return directory


@pytest.fixture
async def directories(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Directories]:
    """Their clock is ahead, so that no file counts as changed just now."""
    (tmp_path / "state").mkdir()
    yield Directories(nursery.start_soon, (tmp_path / "state",), now=lambda: time.time_ns() + 60 * 10**9)


def found(looks: Looks, key: Any = EVERYTHING) -> DirectoryLook:
    look = looks[key]
    assert isinstance(look, DirectoryLook), look
    return look


def setback(looks: Looks) -> Setback:
    [look, *others] = looks.values()
    assert isinstance(look, Setback)
    assert all(each == look for each in others)
    return look


def paths(look: DirectoryLook) -> list[str]:
    return [entry.path for entry in look.source.entries]
