"""The primary's half of a measurement, in a process of its own: a hub, and a task for each line it reads.

Started by `tests/bench/blocksync.py`. The first line it prints says where it listens, the second that the
agent is there. Each line on standard input is a JSON object with `source`, `target`, `first`, `durability`
and `checkout`, and is answered by one line with the times and the report. It ends when its input ends.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from agent.wire.messages import RUNS, Task, TaskReport
from reconciler.keys import MasterKey
from reconciler.logs import QUIET, configure_logging
from reconciler.settings_values import Address
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.hub import Hub
from reconciler.sync.remembered import Remembered
from reconciler.sync.selection import Selection
from reconciler.sync.serving import TreeSource
from reconciler.sync.streamed import Attempts, Growing

NODE = "bench"
_CONNECT_DEADLINE = 60.0


async def look_at(memory: Remembered, directory: Path) -> TreeSource:
    """As `reconciler.directories` looks at a live directory."""
    scan = memory.of(())
    source = await TreeSource.build(directory, remembered=scan)
    scan.keep(source)
    memory.forget()
    return source


@dataclass
class Target:
    """What a running primary knows of one. It begins with the first copy: what was hashed for another target
    would be a gift."""

    memory: Remembered = field(default_factory=lambda: Remembered(time.time_ns))
    placed: bytes | None = None
    """The digest of the tree that was brought there last."""


async def measure(hub: Hub, order: dict[str, Any], targets: dict[str, Target]) -> dict[str, object]:
    """Look at the source and bring the target to it, as a pass does; times in seconds.

    As in a pass (`reconciler.early_looks`), the agent is asked how the target is while the source is looked
    at. Where neither differs from what was placed, nothing is left to do; otherwise a task follows.
    """
    if order["checkout"]:
        return await place_checkout(hub, order)
    if order["first"]:
        targets[order["target"]] = Target()
    target = targets[order["target"]]
    seen: list[TaskReport] = []

    async def look_at_target(placed: bytes) -> None:
        seen.append(await hub.run_task(NODE, task_of(order, uuid.uuid4().hex, placed, observe=True)))

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        if target.placed is not None:
            nursery.start_soon(look_at_target, target.placed)
        source = await look_at(target.memory, Path(order["source"]))
        scanned = time.perf_counter()
    if seen and is_as_placed(target.placed, source, seen[0]):
        report = seen[0]
    else:
        report = await run_task(hub, order, uuid.uuid4().hex, source)
        target.placed = source.tree
    return answer(report, begin, scanned)


def is_as_placed(placed: bytes | None, source: TreeSource, seen: TaskReport) -> bool:
    """Whether the source is as when it was placed, and so is the target, by what was `seen` there."""
    return seen.state == "SUCCESS" and placed == source.tree == seen.observed


async def place_checkout(hub: Hub, order: dict[str, Any]) -> dict[str, object]:
    """A first copy of a tree whose times mean nothing, as that of a repository: sent while it is hashed."""
    begin = time.perf_counter()
    growing = await Growing.begin(Path(order["source"]), Selection(()))
    looked = time.perf_counter()

    async def send(_known_as: str, id: str, source: TreeSource) -> TaskReport:
        return await run_task(hub, order, id, source)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        report = await Attempts(growing.source, send)(uuid.uuid4().hex)
    return answer(report, begin, looked)


async def run_task(hub: Hub, order: dict[str, Any], id: str, source: TreeSource) -> TaskReport:
    task = task_of(order, id, source.tree, observe=False)
    return await hub.run_task(NODE, source.offered(task), source)


def task_of(order: dict[str, Any], id: str, tree: bytes, *, observe: bool) -> Task:
    return Task(
        id=id,
        project="bench",
        target_path=order["target"],
        observe=observe,
        strategy="mirror",
        tree=tree,
        durability=order["durability"],
        max_delete=1.0,
        features=() if observe else (RUNS,),
    )


def answer(report: TaskReport, begin: float, scanned: float) -> dict[str, object]:
    return {
        "state": report.state,
        "reason": f"{report.reason}: {report.message}",
        "seconds": time.perf_counter() - begin,
        "scan_seconds": scanned - begin,
        "bytes_moved": report.bytes_received,
    }


async def remembered(node: str, certificate: bytes, trust_on_first_use: bool) -> None:
    """A primary writes the certificate to the status branch; this one lives no longer than its hub."""


async def main(token_key: str, tls_dir: Path) -> None:
    configure_logging(verbosity=QUIET)  # standard output is for answers
    key = MasterKey.generate().tls_key
    enrolments = [Enrolment(NODE, token_key)]
    async with Hub(
        address=Address("127.0.0.1", 0),
        key=key,
        tls_dir=tls_dir,
        enrolments=enrolments,
        on_paired=remembered,
    ) as hub:
        say({"port": hub.addresses[0].port, "fingerprint": hub.fingerprint})
        if not await hub.wait_connected([NODE], _CONNECT_DEADLINE):
            raise SystemExit("the agent did not connect")
        say({"connected": True})
        targets: dict[str, Target] = {}
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            say(await measure(hub, json.loads(line), targets))


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
