"""How much memory many idle agents cost a primary, and how long they take to come back after an outage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.bench.report import MIB, Measurement
from tests.ports import free_port

PROCESSES = 4
"""That the agents are spread over."""

OUTAGE = 5.0


class Child:
    """A process that answers each line with a line."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._read()

    def ask(self, order: object) -> Any:
        self.tell(order)
        return self._read()

    def tell(self, order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        return json.loads(line)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def child(*command: str) -> Iterator[Child]:
    running = Child(*command)
    try:
        yield running
    finally:
        running.kill()


def bench_fleet(where: Path, *, agents: int, returning: int, rest: float) -> list[Measurement]:
    """`returning` of the agents are there when the primary goes away for a while."""
    where.mkdir(mode=0o700)
    idle = Measurement(f"{agents:,} idle agents connect", "trueup")
    back = Measurement(f"{returning:,} agents come back after {OUTAGE:g} s", "trueup")
    port = free_port()
    hub = ("tests.bench.running_hub", str(where / "hub"), str(port))
    with ExitStack() as resources:
        primary = resources.enter_context(child(*hub))
        share = agents // PROCESSES
        groups = [
            resources.enter_context(
                child(
                    "tests.bench.running_agents",
                    *(str(where / "agents"), str(number * share), str(share), str(port)),
                    primary.first["fingerprint"],
                )
            )
            for number in range(PROCESSES)
        ]
        enrolments = [enrolment for group in groups for enrolment in group.first]
        before = primary.ask({"enrol": enrolments})
        staying = returning // share
        for group in groups:
            group.tell("go")
        connected = primary.ask({"connected": agents})
        _check(connected, agents)
        time.sleep(rest)
        resting = primary.ask({"connected": agents})
        _check(resting, agents)
        idle.seconds.append(connected["seconds"])
        idle.note_memory({"primary": resting["peak"]})
        each = (resting["rss"] - before["rss"]) / agents / 1024
        idle.note = f"{resting['rss'] / MIB:.0f} MiB at rest, {each:.0f} KiB an agent; at most 512 MiB wanted"
        for group in groups[staying:]:
            group.kill()
        there = groups[:staying]
        took = sum(group.ask("processor") for group in there)
        primary.kill()
        time.sleep(OUTAGE)
        begin = time.perf_counter()
        again = resources.enter_context(child(*hub))
        again.ask({"enrol": enrolments})
        returned = again.ask({"connected": returning})
        _check(returned, returning)
        back.seconds.append(time.perf_counter() - begin)
        took = sum(group.ask("processor") for group in there) - took
        back.note = (
            f"at most 30 s wanted, the primary's start included; {returned['cpu']:.1f} s of a processor at"
            f" the primary, {took:.1f} s at the agents; load {Path('/proc/loadavg').read_text().split()[0]}"
        )
    return [idle, back]


def _check(answer: dict[str, Any], wanted: int) -> None:
    if answer["connected"] < wanted:
        raise RuntimeError(f"{answer['connected']} of {wanted} agents are connected")
