"""Tasks that change everything that can change: on a host where somebody did something meanwhile, and on one
where nothing is yet, while the tree is hashed."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import trio

from agent.failures import single
from agent.index import BACKUP_MARK, STAGING
from agent.wire.messages import RUNS, RenderedContent, TaskReport
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Attempts, Growing
from tests.agent.streams import STREAMED, begin, first_copy
from tests.agent.syncing import (
    AFTER,
    BEFORE,
    Host,
    Tree,
    observe,
    read_tree,
    recalled,
    synchronise,
    write_tree,
)

OLD: Tree = {**BEFORE, "edited": b"placed"}
NEW: Tree = {**AFTER, "edited": b"new"}
FOREIGN: Tree = {"mine": b"mine", "fresh/mine": b"mine too", "fresh": None, "edited": b"by hand"}
FORMER = (RenderedContent(path="conf/.env", content=b"A=0\n"),)
RENDERED = (RenderedContent(path="conf/.env", content=b"A=1\n"),)
FIRST: Tree = {
    "a/first": b"first" * 1000,
    "b/empty": b"",
    "c/big": bytes(range(250)) * 2800,
    "d/hole": bytes(400_000),
    "link": "a/first",
    "none": None,
    "z/last": b"last" * 5000,
}
POLICY: dict[str, Any] = {"durability": "commit", "on_local_edit": "backup", "rendered": RENDERED}


class Upheaval:
    """Hosts with the old tree and what somebody did there, for a task to the new one."""

    streams = False

    def __init__(self, where: Path, **policy: Any) -> None:
        self.policy = POLICY | policy
        self.base = where / "host"
        self.old = write_tree(where / "old", OLD)
        self.new = write_tree(where / "new", NEW)

    async def host(self) -> Host:
        """A host as it was before the task."""
        host = Host(self.base)
        assert (await synchronise(self.old, host, **self.policy | {"rendered": FORMER})).state == "SUCCESS"
        write_tree(host.target, FOREIGN)
        return host

    async def retry(self, host: Host, note: object) -> None:
        """What a task that was cut off left is whole, and the next one completes it."""
        check_whole(read_tree(host.target), note)
        outcome = await synchronise(self.new, host, **self.policy)
        assert outcome.state == "SUCCESS", (note, outcome.report.message)
        found = read_tree(host.target)
        backups = [path for path in found if BACKUP_MARK in path]
        # One that was named before the cut and is still the original, and the one of the retry.
        assert 1 <= len(backups) <= 2, note
        assert {found.pop(path) for path in backups} == {b"by hand"}, note
        expected = read_tree(self.new) | {"mine": b"mine", "fresh/mine": b"mine too"}
        assert found == expected | {"conf": None, "conf/.env": b"A=1\n"}, note


class AtAGlance(Upheaval):
    """The same where nobody did anything and no directory goes, so that the task looks at what it changes
    alone."""

    def __init__(self, where: Path) -> None:
        super().__init__(where)
        for source in (self.old, self.new):
            (source / "gone").mkdir(exist_ok=True)
        shutil.rmtree(self.old / "becomes_file")

    async def host(self) -> Host:
        host = Host(self.base)
        assert (await synchronise(self.old, host, **self.policy)).state == "SUCCESS"
        with trio.fail_after(60):
            while not await recalled(host, rendered=RENDERED):
                await observe(host, rendered=RENDERED)
        return host

    async def retry(self, host: Host, note: object) -> None:
        """Nothing that a task left which was cut off is taken for somebody's edit, or for as it was."""
        trees = read_tree(self.old), read_tree(self.new)
        for path, content in read_tree(host.target).items():
            if not path.startswith((STAGING, "conf")):
                assert content in [tree[path] for tree in trees if path in tree], (note, path)
        outcome = await synchronise(self.new, host, **self.policy)
        assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", 0), (note, outcome.report.message)
        expected = read_tree(self.new) | {"conf": None, "conf/.env": b"A=1\n"}
        assert read_tree(host.target) == expected, note
        report = await observe(host, rendered=RENDERED)
        assert report.observed == outcome.report.established, note
        assert (report.foreign, report.local_edits) == (0, 0), note


def check_whole(found: Tree, note: object) -> None:
    """Each path has its old or its new content, and nothing of somebody else's is lost."""
    for path, content in found.items():
        if not path.startswith((STAGING, "conf")) and BACKUP_MARK not in path:
            allowed = [tree[path] for tree in (OLD, NEW, FOREIGN) if path in tree]
            assert content in allowed or content is None, (note, path)
    assert found["mine"] == b"mine"
    assert found["fresh/mine"] == b"mine too"
    assert found["conf/.env"] in (b"A=0\n", b"A=1\n")
    assert {"changed", "big", "link"} <= found.keys(), note
    kept = [content for path, content in found.items() if path == "edited" or BACKUP_MARK in path]
    assert b"by hand" in kept, note


class FirstCopy:
    """Hosts where nothing is, for a first copy while the tree is hashed."""

    streams = True

    def __init__(self, where: Path) -> None:
        self.base = where / "host"
        self.new = write_tree(where / "new", FIRST)

    async def host(self) -> Host:
        return Host(self.base)

    async def retry(self, host: Host, note: object) -> None:
        """What a task that was cut off left is whole, and the next attempt, as a primary makes it, completes
        it."""
        wanted = read_tree(self.new) | {"conf": None, "conf/.env": b"A=1\n"}
        there = read_tree(host.target)
        placed = {path: content for path, content in there.items() if not path.startswith(STAGING)}
        assert placed.items() <= wanted.items(), note
        growing = await growing_of(self.new)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(growing.run)
            report = await Attempts(growing.source, partial(_attempt, host, growing))("t1")
        assert report.state == "SUCCESS", (note, report.message)
        assert (report.local_edits, report.foreign) == (0, 0), note
        assert read_tree(host.target) == wanted, note


async def growing_of(source: Path) -> Growing:
    return await begin(source, reserved=[file.path for file in RENDERED])


async def _attempt(host: Host, growing: Growing, _attempt: str, _id: str, given: TreeSource) -> TaskReport:
    if given.growing is None:
        return (await synchronise(given, host, features=(RUNS, *STREAMED), **POLICY)).report
    try:
        return await first_copy(growing, host, **POLICY)
    except BaseExceptionGroup as group:
        raise single(group) from None
