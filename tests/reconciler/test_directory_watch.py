"""Watching directories: real inotify tells of changes, and where it cannot, that is said once."""

import os
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from reconciler.bulletin import Bulletin
from reconciler.directory_watch import (
    FIRST,
    LONGEST,
    MAX_WATCHED,
    DirectoryWatch,
    Restarts,
    concerned,
    watched,
)
from reconciler.journal import Journal
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from tests.reconciler.facts import HEAD

SITE = "projects/branch/site"


def project(name: str, directory: Path | str, rest: str = "", sync: str = "") -> str:
    return (
        f"  {name}: {{source: {{directory: {directory}, watch: true}}, {rest}"
        f" sync: {{{sync} nodes: [{{node_id: web-1, target_path: /srv/{name}}}]}}}}\n"
    )


def spec_of(*projects: str) -> Spec:
    return load_or_raise({SPEC_FILE: f"{HEAD}projects:\n{''.join(projects)}".encode()})


@dataclass
class Running:
    """What `DirectoryWatch` needs of a primary, and what it asked for."""

    journal: Journal
    spec: Spec | None
    bulletin: Bulletin = field(default_factory=Bulletin)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    _more: trio.Event = field(default_factory=trio.Event)

    def ask(self, why: str, *, resources: Collection[str]) -> None:
        self.asked.append((why, *resources))
        self._more.set()
        self._more = trio.Event()

    async def heard(self, *wanted: str) -> None:
        """Once that was asked for; forgets what was before."""
        with trio.fail_after(120):
            while wanted not in self.asked:
                await self._more.wait()
        del self.asked[: self.asked.index(wanted) + 1]


@pytest.fixture
async def running(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Running]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        primary: Any = Running(journal, None)
        nursery.start_soon(DirectoryWatch(primary, primary.ask).run)
        yield primary
        nursery.cancel_scope.cancel()


async def test_changes_are_heard_of_also_below_and_after_another_directory_came(
    tmp_path: Path, running: Running
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    running.spec = spec_of(project("site", site))
    running.bulletin.tell()
    await running.heard(f"{site} is watched from now on", SITE)
    (site / "index.html").write_text("one\n")
    await running.heard(f"{site} changed", SITE)
    (site / "new/deep").mkdir(parents=True)
    await running.heard(f"{site} changed", SITE)
    (site / "new/deep/file").write_text("two\n")
    await running.heard(f"{site} changed", SITE)
    site.rename(tmp_path / "old")
    await running.heard(f"another {site} is there, or none", SITE)
    (site / "index.html").parent.mkdir()
    await running.heard(f"{site} is watched from now on", SITE)
    (site / "index.html").write_text("three\n")
    await running.heard(f"{site} changed", SITE)
    # Out of the spec, out of mind; and in again.
    running.spec = spec_of(project("other", tmp_path / "old"))
    running.bulletin.tell()
    await running.heard(f"{tmp_path / 'old'} is watched from now on", "projects/branch/other")
    running.spec = spec_of(project("site", site))
    running.bulletin.tell()
    await running.heard(f"{site} is watched from now on", SITE)


async def test_one_directory_of_several_projects(tmp_path: Path, running: Running) -> None:
    running.spec = spec_of(project("site", tmp_path), project("b", tmp_path))
    running.bulletin.tell()
    await running.heard(f"{tmp_path} is watched from now on", SITE, "projects/branch/b")


@pytest.mark.parametrize("name", [b"b-\xff", b"b-\xff.log"], ids=["any", "ignored"])
async def test_a_name_that_is_not_text_is_a_change_like_any_other(
    tmp_path: Path, running: Running, name: bytes
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    running.spec = spec_of(project("site", site, sync="ignore_patterns: ['*.log'],"))
    running.bulletin.tell()
    await running.heard(f"{site} is watched from now on", SITE)
    (site / os.fsdecode(name)).write_text("one\n")
    await running.heard(f"{site} is watched from now on", SITE)
    (site / "index.html").write_text("two\n")
    await running.heard(f"{site} changed", SITE)
    assert not running.journal.events()


def test_watching_begins_anew_at_once_and_more_seldom_the_more_often_it_has_to() -> None:
    restarts, now, pauses = Restarts(), 1000.0, []
    for _ in range(12):
        pauses.append(restarts.pause(now))
        now += pauses[-1]
    assert pauses[0] == 0
    assert all(FIRST / 2 <= pause <= LONGEST for pause in pauses[1:])
    assert all(pause >= LONGEST / 2 for pause in pauses[-3:])
    assert restarts.pause(now + 6 * LONGEST) == 0


async def test_where_watching_fails_that_is_said_once(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the kernel has no watches left; once it has, everything is as ever."""
    from watchfiles import _rust_notify

    real, tries = _rust_notify.RustNotify, 0

    def limited(*given: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise OSError("OS file watch limit reached")
        return real(*given)

    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", limited)
    monkeypatch.setattr("reconciler.directory_watch.UNWATCHABLE", 0.0)
    running.spec = spec_of(project("site", tmp_path))
    running.bulletin.tell()
    await running.heard(f"{tmp_path} is watched from now on", SITE)
    [event] = running.journal.events()
    assert (event.kind, event.resource, event.reason) == ("unwatched", SITE, "WatchFailed")
    assert event.message.startswith(f"{tmp_path} cannot be watched (OS file watch limit reached)")
    (tmp_path / "x").write_text("x\n")
    await running.heard(f"{tmp_path} changed", SITE)


def test_which_directories_are_watched() -> None:
    spec = spec_of(
        project("site", "/a"),
        project("same", "/a"),
        project("off", "/b", "suspend: true,"),
        project("disabled", "/c", sync="enabled: false,"),
        project("still", "/d").replace(", watch: true", ""),
    )
    assert {directory: [each.id for each in projects] for directory, projects in watched(spec).items()} == {
        "/a": ["site", "same"]
    }
    many = spec_of(*(project(f"p{number}", f"/d{number}") for number in range(MAX_WATCHED + 5)))
    assert len(watched(many)) == MAX_WATCHED


def test_what_is_ignored_asks_for_nothing() -> None:
    spec = spec_of(project("site", "/a", sync="ignore_patterns: ['*.log'],"), project("b", "/a"))
    [projects] = watched(spec).values()
    ids = [
        [each.id for each in concerned(projects, "/a", paths)]
        for paths in (["/a/x.log"], ["/a/tmp/x"], ["/a/.git/index"], ["/a/x.log", "/a/y"], ["/a"])
    ]
    assert ids == [["b"], [], [], ["site", "b"], ["site", "b"]]
