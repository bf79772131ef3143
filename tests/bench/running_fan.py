"""A primary that brings one tree to many agents at once, in a process of its own; started by `fans.py`.

The first line it prints says where it listens, the second that all agents are there. Each line on standard
input is a JSON object with `source`, `targets` (by node) and `durability`, and is answered by one line with
times and what went wrong. It ends when its input ends. It has worker processes as SYNC_WORKERS says.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import trio

from agent.wire.bulk import PIECES
from agent.wire.messages import RUNS, Task
from reconciler.keys import MasterKey
from reconciler.settings_values import Address
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.hub import Hub
from reconciler.sync.serving import TreeSource
from reconciler.sync.worker_count import how_many, parse_workers
from tests.bench.primary import remembered, say

_CONNECT_DEADLINE = 120.0


async def measure(hub: Hub, order: dict[str, Any]) -> dict[str, object]:
    """Look at the source once, and bring all targets to it at the same time; times in seconds."""
    failed: dict[str, str] = {}
    moved = 0
    began = time.perf_counter()
    source = await TreeSource.build(Path(order["source"]))

    async def one(node: str, target: str) -> None:
        nonlocal moved
        task = Task(
            id=uuid.uuid4().hex,
            project="bench",
            target_path=target,
            observe=False,
            strategy="mirror",
            tree=source.tree,
            durability=order["durability"],
            max_delete=1.0,
            features=(RUNS, PIECES),
        )
        report = await hub.run_task(node, source.offered(task), source)
        moved += report.bytes_received
        if report.state != "SUCCESS":
            failed[node] = f"{report.reason}: {report.message}"

    async with trio.open_nursery() as nursery:
        for node, target in order["targets"].items():
            nursery.start_soon(one, node, target)
    return {
        "seconds": time.perf_counter() - began,
        "bytes_moved": moved,
        "failed": failed,
        "reads": source.frames.reads,
    }


async def main(tls_dir: Path, workers: str, token_key: str, nodes: list[str]) -> None:
    hub = Hub(
        address=Address("127.0.0.1", 0),
        key=MasterKey.generate().tls_key,
        tls_dir=tls_dir,
        enrolments=[Enrolment(node, token_key) for node in nodes],
        on_paired=remembered,
        workers=partial(how_many, parse_workers(workers), len(os.sched_getaffinity(0))),
    )
    async with hub:
        say({"port": hub.addresses[0].port, "fingerprint": hub.fingerprint})
        if await hub.wait_connected(nodes, _CONNECT_DEADLINE) != set(nodes):
            raise SystemExit("not all agents connected")
        say({"connected": True})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            say(await measure(hub, json.loads(line)))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
