"""First copies of trees that are still being hashed, both ends real."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from agent.scan import Found, hash_files
from agent.wire.bulk import PIECES
from agent.wire.messages import NO_TIMES, STREAM, AnyMessage, TaskReport
from agent.work import run_work
from reconciler.sync.selection import Selection
from reconciler.sync.serving import serve_task
from reconciler.sync.streamed import Growing
from tests.agent.syncing import Host
from tests.channelpair import channel_pair

STREAMED = (STREAM, NO_TIMES, PIECES)

Alter = Callable[[AnyMessage, bytes | None], list[tuple[AnyMessage, bytes | None]]]


async def begin(source: Path, gate: trio.Event | None = None, *, reserved: Sequence[str] = ()) -> Growing:
    """`gate` holds back the hashing of the file `z/last`; `reserved` are paths of rendered files."""

    async def hash(root_fd: int, files: Sequence[tuple[str, Found]]) -> Mapping[str, bytes | None]:
        if gate is not None and any(path == "z/last" for path, _ in files):
            await gate.wait()
        return await hash_files(root_fd, files)

    return await Growing.begin(source, Selection(reserved=reserved), hash=hash)


async def first_copy(
    growing: Growing,
    host: Host,
    *,
    alter: Alter | None = None,
    features: tuple[str, ...] = STREAMED,
    **changes: Any,
) -> TaskReport:
    """One streamed task, while somebody else hashes or does not."""
    primary, agent = channel_pair()
    primary.alter = alter
    task = host.task(growing.source.tree, features=features, **changes)
    reports: list[TaskReport] = []

    async def serve() -> None:
        reports.append(await serve_task(primary, growing.source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            report = await run_work(task, agent, rules=host.rules, state_dir=host.state)
            await agent.send(report)
        except BaseException:
            agent.cut()
            raise
    assert reports == [report]
    return report
