"""Real agents, each a process of its own over mTLS on loopback, that take one tree from one primary at once.

`python3 tasks.py bench --only fanout` compares twenty of them with twenty runs of rsync over ssh, one after
the other; `--only agents` shows how time and memory grow with their number.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.node_token import NodeToken
from tests.bench import trees
from tests.bench.blocksync import read_answer
from tests.bench.report import MIB, Measurement
from tests.bench.rsync import Rsync, rsync_over_ssh
from tests.bench.usage import Usage, measured

ROOT = Path(__file__).parents[2]
AGENTS = 20
NUMBERS = (1, 5, 10, 20)
_END_DEADLINE = 20.0


@dataclass(frozen=True)
class Round:
    """What one order to all agents took."""

    seconds: float
    usage: Usage
    primary_cpu: float
    """With its worker processes, as the peak."""
    primary_peak: int
    reads: int
    bytes_moved: int

    @property
    def agents_cpu(self) -> float:
        return self.usage.cpu_seconds - self.primary_cpu


class Fan:
    """A primary and its agents."""

    def __init__(
        self, primary: subprocess.Popen[str], agents: Mapping[str, subprocess.Popen[bytes]], durability: str
    ) -> None:
        self._primary = primary
        self._agents = agents
        self._durability = durability

    @property
    def nodes(self) -> Sequence[str]:
        return tuple(self._agents)

    def copy(self, source: Path, targets: Mapping[str, Path]) -> Round:
        """By these nodes, all at once; the look at the source is in the time."""
        order = {
            "source": str(source),
            "targets": {node: str(target) for node, target in targets.items()},
            "durability": self._durability,
        }
        pids = (self._primary.pid, *(self._agents[node].pid for node in targets))
        with measured(lambda: pids) as usage, measured(lambda: pids[:1]) as primary:
            print(json.dumps(order), file=self._primary.stdin, flush=True)
            answer = read_answer(self._primary)
        if answer["failed"]:
            raise RuntimeError(f"tasks failed: {answer['failed']}")
        return Round(
            answer["seconds"],
            usage,
            primary_cpu=primary.cpu_seconds,
            primary_peak=primary.peak_rss,
            reads=answer["reads"],
            bytes_moved=answer["bytes_moved"],
        )


@contextmanager
def fan(private: Path, root: Path, agents: int, durability: str = "none") -> Iterator[Fan]:
    """Start all processes; the agents may write below `root`. All have ended when this is left."""
    private.mkdir(mode=0o700)
    nodes = [f"node-{number:02}" for number in range(agents)]
    token = NodeToken.generate()  # each node may have a token of its own, and here they share one
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(private), "PYTHONPATH": str(ROOT)}
    primary = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.bench.running_fan"),
            *(str(private / "tls"), os.environ.get("SYNC_WORKERS") or "auto", token.public_text, *nodes),
        ],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        listens = read_answer(primary)
        where = ["--primary", f"127.0.0.1:{listens['port']}", "--pin", listens["fingerprint"]]
        joins = [
            [
                *("join", "--config", str(private / f"{node}.toml"), *where, "--node", node),
                *("--root", str(root), "--state-dir", str(private / node)),
            ]
            for node in nodes
        ]
        subprocess.run(
            [sys.executable, "-m", "tests.bench.joining"],
            cwd=ROOT,
            env={**environment, "SYNC_NODE_TOKEN": token.to_text()},
            input=json.dumps(joins).encode(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        for node in nodes:
            command = [sys.executable, "-m", "agent", "run", "--config", str(private / f"{node}.toml")]
            with (private / f"{node}.log").open("wb") as log:
                running[node] = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        read_answer(primary)
        yield Fan(primary, running, durability)
    finally:
        for agent in running.values():
            agent.terminate()
        assert primary.stdin is not None
        primary.stdin.close()
        for agent in running.values():
            _end(agent)
        _end(primary)
        assert primary.stdout is not None
        primary.stdout.close()


def _end(process: subprocess.Popen[Any]) -> None:
    try:
        process.wait(_END_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def bench_real_crowds(where: Path, *, most: int, files: int) -> list[Measurement]:
    """How time and memory grow with the number of agents."""
    tree, targets = where / "tree", where / "targets"
    trees.make_small_files(tree, files)
    targets.mkdir()
    rows: list[Measurement] = []
    with fan(where / "private", targets, most) as running:
        for agents in (number for number in NUMBERS if number <= most):
            wanted = {node: targets / str(agents) / node for node in running.nodes[:agents]}
            first = running.copy(tree, wanted)
            again = running.copy(tree, wanted)
            _check(tree, wanted)
            row = Measurement(f"{agents} real agents, the same tree of {files} files", "trueup")
            _note(row, first)
            row.note = (
                f"{first.seconds / agents * 1000:.0f} ms an agent; {row.note};"
                f" nothing changed: {again.seconds:.2f} s"
            )
            rows.append(row)
    return rows


def bench_fanout(where: Path, *, size: int, runs: int) -> list[Measurement]:
    """Twenty agents at once against twenty runs of rsync, one after the other, in turns."""
    rows: dict[tuple[str, str], Measurement] = {}
    source, targets = where / "source", where / "targets"
    trees.make_mixed_files(source, size)
    head = f"{AGENTS} hosts, a tree of {size // MIB} MiB"
    with (
        rsync_over_ssh(where / "ssh") as rsync,
        fan(where / "private", targets, AGENTS) as running,
    ):
        for number in range(runs):
            ours = {node: targets / "trueup" / node for node in running.nodes}
            theirs = {node: targets / "rsync" / node for node in running.nodes}
            for target in (*ours.values(), *theirs.values()):
                target.mkdir(parents=True)
            for work in (f"{head}, first copy", f"{head}, 1 % changed"):
                if work.endswith("changed"):
                    trees.change_files(source, seed=number)
                print(f"{work}: run {number + 1} of {runs}", file=sys.stderr, flush=True)
                os.sync()
                row = rows.setdefault((work, rsync.name), Measurement(work, rsync.name))
                _one_after_the_other(row, rsync, source, theirs)
                os.sync()
                row = rows.setdefault((work, "trueup"), Measurement(work, "trueup"))
                _note(row, running.copy(source, ours))
                _check(source, theirs, ours)
            shutil.rmtree(targets)
    return list(rows.values())


def _one_after_the_other(row: Measurement, rsync: Rsync, source: Path, targets: Mapping[str, Path]) -> None:
    with measured(rsync.processes) as usage:
        copied = [rsync.copy(source, target) for target in targets.values()]
    row.seconds.append(sum(one.seconds for one in copied))
    row.bytes_moved = sum(one.bytes_moved or 0 for one in copied)
    row.cpu_seconds.append(usage.cpu_seconds)
    row.wire_bytes.append(usage.wire_bytes)


def _note(row: Measurement, round: Round) -> None:
    row.seconds.append(round.seconds)
    row.bytes_moved = round.bytes_moved
    row.cpu_seconds.append(round.usage.cpu_seconds)
    row.wire_bytes.append(round.usage.wire_bytes)
    row.note_memory({"primary": round.primary_peak})
    row.note = (
        f"processor: primary {round.primary_cpu:.2f} s, agents {round.agents_cpu:.2f} s;"
        f" {round.reads} frames read"
    )


def _check(source: Path, *targets: Mapping[str, Path]) -> None:
    for target in (one for each in targets for one in each.values()):
        if wrong := trees.differences(source, target):
            raise RuntimeError(f"{target} is a wrong copy: {wrong}")
