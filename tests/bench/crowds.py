"""1 to 200 agents that take the same tree from one primary at once: time, and memory as their number grows.

`python3 tasks.py bench --only agents`. Agents and primary are in one process, each pair over memory streams
with real links, routing and workers on both sides, so that TLS is not measured; each number of agents has a
process of its own, so that the peak is its own. The agents' share of the memory is in the figures too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from reconciler.sync.serving import TreeSource
from tests.agent.memorysession import session_task
from tests.agent.syncing import Host
from tests.bench import trees
from tests.bench.report import MIB, Measurement

NUMBERS = (1, 2, 5, 10, 20, 50, 100, 200)
FILES = 400


def peak() -> int:
    """The most resident memory that this process had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def crowd(source: TreeSource, hosts: Sequence[Host]) -> None:
    """One task for each host, all at once."""

    async def one(host: Host) -> None:
        report = await session_task(source, host)
        if report is None or report.state != "SUCCESS":
            raise RuntimeError(f"the task for {host.base} did not succeed: {report}")

    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(one, host)


async def measure(tree: Path, where: Path, agents: int) -> dict[str, float]:
    source = await TreeSource.build(tree)
    hosts = [Host(where / str(number)) for number in range(agents)]
    for host in hosts:
        host.state.mkdir(parents=True)  # as `trueup-agent join` does
    before = peak()
    began, cpu = time.perf_counter(), time.process_time()
    await crowd(source, hosts)
    first, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    await crowd(source, hosts)
    again = time.perf_counter() - began
    return {"before": before, "peak": peak(), "first": first, "cpu": cpu, "again": again}


def bench_crowds(where: Path, *, most: int) -> list[Measurement]:
    tree = where / "tree"
    trees.make_small_files(tree, FILES)
    measured: list[Measurement] = []
    for agents in (number for number in NUMBERS if number <= most):
        with tempfile.TemporaryDirectory(dir=where) as hosts:
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.crowds", str(tree), hosts, str(agents)],
                stdout=subprocess.PIPE,
                check=True,
            )
            found = json.loads(done.stdout)
            for number in range(agents):
                if wrong := trees.differences(tree, Path(hosts) / str(number) / "srv/app"):
                    raise RuntimeError(f"agent {number} of {agents}: {wrong}")
        first = Measurement(f"{agents} agents, the same tree of {FILES} files", "trueup")
        first.seconds.append(found["first"])
        first.cpu_seconds.append(found["cpu"])
        first.note_memory({"primary and agents": int(found["peak"])})
        each = (found["peak"] - found["before"]) / agents
        first.note = (
            f"{found['first'] / agents * 1000:.0f} ms, {found['cpu'] / agents * 1000:.0f} ms of a processor"
            f" and {each / MIB:.2f} MiB an agent;"
            f" nothing changed: {found['again']:.2f} s"
        )
        measured.append(first)
    return measured


if __name__ == "__main__":
    print(json.dumps(trio.run(measure, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
