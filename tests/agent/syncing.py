"""Runs whole tasks between a directory and a target, both ends real, and reads trees from disk."""

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import trio

from agent.blocks import MIN_BLOCK
from agent.manifest import manifest_path
from agent.recall import recall
from agent.recent import RecentLooks
from agent.rules import AgentRules
from agent.scope import scope_of
from agent.target import open_target
from agent.wire.bulk import PIECES
from agent.wire.channel import Channel
from agent.wire.messages import RUNS, RenderedContent, Task, TaskReport
from agent.work import run_work
from reconciler.sync.serving import TreeSource, serve_task
from reconciler.sync.telling import TreeRuns
from tests.channelpair import MemoryChannel, Traffic, channel_pair

Tree = dict[str, object]
"""Path to content: bytes of a file, None for a directory, str for where a symlink leads."""

BEFORE: Tree = {
    "changed": b"old" * 100,
    "big": b"o" * (MIN_BLOCK + 10),
    "gone/deep": b"gone",
    "becomes_file/x": b"1",
    "becomes_folder": b"2",
    "link": "changed",
}
AFTER: Tree = {
    "changed": b"new" * 100,
    "big": b"o" * MIN_BLOCK + b"n" * 10,
    "fresh/file": b"fresh",
    "fresh/none": None,
    "becomes_file": b"3",
    "becomes_folder/y": b"4",
    "link": "big",
}
"""From the one to the other everything happens that can happen to a name."""


SITE: Tree = {
    "index.html": b"<h1>hello</h1>",
    "static/app.js": b"x" * (3 * MIN_BLOCK + 17),
    "static/empty.css": b"",
    "static/none": None,
    "bin/run": b"#!/bin/sh\n",
    "current": "static/app.js",
    "dangling": "/nowhere/at/all",
    "ü/ß": b"\0\xff",
}
"""All that a tree may hold."""


def write_tree(root: Path, tree: Mapping[str, object]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(tree.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)
    return root


def laid_out(at: Path) -> Path:
    """`SITE` with modes and times of its own."""
    root = write_tree(at, SITE)
    (root / "bin/run").chmod(0o755)
    (root / "static/none").chmod(0o700)
    for path in [*root.rglob("*"), root]:
        os.utime(path, (1_500_000_000.25, 1_500_000_000.25), follow_symlinks=False)
    return root


def read_tree(root: Path) -> Tree:
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder) / name
            status = path.lstat()
            key = str(path.relative_to(root))
            if stat.S_ISLNK(status.st_mode):
                tree[key] = str(path.readlink())
            elif stat.S_ISDIR(status.st_mode):
                tree[key] = None
            elif stat.S_ISREG(status.st_mode):
                tree[key] = path.read_bytes()
            else:
                tree[key] = "special"
    return tree


def modes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode)
        for path in root.rglob("*")
        if not path.is_symlink()
    }


def without_times(source: TreeSource) -> TreeSource:
    """A tree as that of a checkout, whose times mean nothing."""
    entries = tuple(msgspec.structs.replace(entry, mtime_ns=0) for entry in source.entries)
    return replace(source, entries=entries, times=False, runs=TreeRuns())


@dataclass
class Host:
    """A node: an allowed root with one target in it, and the agent's state directory."""

    base: Path
    name: str = "app"
    rules: AgentRules = field(init=False)

    def __post_init__(self) -> None:
        (self.base / "srv").mkdir(parents=True, exist_ok=True)
        self.rules = AgentRules(roots=(str(self.base / "srv"),))

    @property
    def target(self) -> Path:
        return self.base / "srv" / self.name

    @property
    def state(self) -> Path:
        return self.base / "state"

    def allow(self, **changes: Any) -> None:
        self.rules = msgspec.structs.replace(self.rules, **changes)

    def task(self, tree: bytes, **changes: Any) -> Task:
        base = Task(
            id="t1",
            project="web",
            target_path=str(self.target),
            observe=False,
            strategy="mirror",
            tree=tree,
            max_delete=1.0,
            durability="none",
            features=(PIECES,),
        )
        return msgspec.structs.replace(base, **changes)


@dataclass
class Outcome:
    report: TaskReport
    from_primary: Traffic
    from_agent: Traffic

    @property
    def state(self) -> str:
        return f"{self.report.state} {self.report.reason}".strip()


async def synchronise(
    source: Path | TreeSource,
    host: Host,
    *,
    ignore: Sequence[str] = (),
    rendered: Sequence[RenderedContent] = (),
    prepare: Callable[[MemoryChannel, MemoryChannel], None] | None = None,
    owners: bool = False,
    looks: RecentLooks | None = None,
    **changes: Any,
) -> Outcome:
    """One task, as the hub and an agent's session would run it."""
    if isinstance(source, Path):
        source = await TreeSource.build(
            source,
            ignore=ignore,
            reserved=[file.path for file in rendered],
            ignore_permissions=changes.get("ignore_permissions", False),
            owners=owners,
        )
    changes.setdefault("features", (RUNS, PIECES))
    task = host.task(source.tree, ignore=tuple(ignore), rendered=tuple(rendered), **changes)
    task = source.with_owners(task)
    primary, agent = channel_pair()
    if prepare is not None:
        prepare(primary, agent)
    reports: list[TaskReport] = []

    async def serve() -> None:
        assert isinstance(source, TreeSource)
        reports.append(await serve_task(primary, source))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            report = await run_work(task, agent, rules=host.rules, state_dir=host.state, looks=looks)
            await agent.send(report)
    assert reports == [report]
    return Outcome(report, primary.sent, agent.sent)


def sync(source: Path, host: Host, **options: Any) -> str:
    """The state in which such a task ends, where no loop runs yet."""

    async def run() -> str:
        return (await synchronise(source, host, **options)).state

    return trio.run(run)


async def observe(host: Host, *, looks: RecentLooks | None = None, **changes: Any) -> TaskReport:
    """An observing task: nothing may be said but the report."""
    primary, agent = channel_pair()
    task = host.task(b"", observe=True, **changes)
    with trio.fail_after(60):
        report = await run_work(task, agent, rules=host.rules, state_dir=host.state, looks=looks)
    assert agent.sent.messages == []
    primary.cut()
    return report


async def recalled(host: Host, **changes: Any) -> bool:
    """Whether the next task would be answered by a glance."""
    task = host.task(b"", observe=True, **changes)
    target = open_target(task.target_path, host.rules.roots, create=False)
    assert target is not None
    try:
        scope = await scope_of(task, host.rules, host.state)
        record = manifest_path(host.state, task.target_path)
        return recall(record, target, task, scope) is not None
    finally:
        target.close()


async def run_against(task: Task, host: Host, script: Callable[[Channel], Any]) -> TaskReport:
    """A task whose primary is played by `script`, an async function of the primary's end."""
    primary, agent = channel_pair()
    result: list[TaskReport] = []

    async def play() -> None:
        await script(primary)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            result.append(await run_work(task, agent, rules=host.rules, state_dir=host.state))
            nursery.cancel_scope.cancel()
    return result[0]
