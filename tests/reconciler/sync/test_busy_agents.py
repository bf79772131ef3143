"""Agents at work, and in all kinds of trouble: what a round of it holds is given back in the end."""

import gc
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import trio
import trio.lowlevel
import trio.testing

from agent.drift import DriftWatch
from agent.wire.bulk import BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.messages import AnyMessage, TaskReport
from agent.work import run_work
from reconciler.sync.hub import AgentUnreachable
from reconciler.sync.serving import TreeSource, serve_task
from tests.agent.syncing import Host, read_tree, write_tree
from tests.connected import Setup, make_node, running_hub
from tests.reconciler.sync.test_many_agents import open_files

NAMES = ("well", "cancelled", "cut-off", "refused")
ROUNDS = 5
LARGE = 2 * 1024 * 1024
"""Bytes of one file, of which each round has another one: whatever keeps one alive is seen."""

SPARE = 512 * 1024
"""Bytes that all rounds after the first may add: what a hub remembers of its last thousand tasks."""

Act = Callable[[], Awaitable[None]]


class Meddling:
    """A task's channel on which something happens once the first block was sent."""

    def __init__(self, channel: Channel, act: Act) -> None:
        self._channel = channel
        self._act: Act | None = act
        self.receive = channel.receive

    async def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None:
        await self._channel.send(message, payload)
        if isinstance(message, BlockResponseBin) and self._act is not None:
            act, self._act = self._act, None
            await act()


class Work:
    """Trees for hosts, and what becomes of each task."""

    def __init__(self, tmp_path: Path) -> None:
        self.hosts = {name: Host(tmp_path / "hosts" / name) for name in NAMES}
        self.meddling: dict[int, Act] = {}
        """By the source that is served."""
        self._sources = tmp_path / "sources"
        self._random = Random(1)
        self._number = 0

    async def serve(self, channel: Channel, source: TreeSource) -> TaskReport:
        act = self.meddling.pop(id(source), None)
        return await serve_task(channel if act is None else Meddling(channel, act), source)

    async def source(self, name: str) -> TreeSource:
        tree = {"large": self._random.randbytes(LARGE), "sub/small": self._random.randbytes(100)}
        return await TreeSource.build(write_tree(self._sources / name, tree))

    async def run(self, setup: Setup, name: str, source: TreeSource, **changes: object) -> TaskReport:
        self._number += 1
        task = self.hosts[name].task(source.tree, id=f"t{self._number}", **changes)
        return await setup.hub.run_task(name, task, source)

    async def round(self, setup: Setup) -> None:
        """Each host gets another tree in the end, one way or another."""
        async with trio.open_nursery() as nursery:
            for each in (self.goes_well, self.is_cancelled, self.is_cut_off, self.is_refused):
                nursery.start_soon(each, setup)
        for name, host in self.hosts.items():
            assert read_tree(host.target) == read_tree(self._sources / name)

    async def goes_well(self, setup: Setup, name: str = "well") -> None:
        report = await self.run(setup, name, await self.source(name))
        assert report.state == "SUCCESS", report

    async def is_cancelled(self, setup: Setup) -> None:
        source = await self.source("cancelled")
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                scope.cancel()
                await trio.lowlevel.checkpoint()

            self.meddling[id(source)] = cancel
            await self.run(setup, "cancelled", source)
        assert scope.cancelled_caught
        await self.goes_well(setup, "cancelled")

    async def is_cut_off(self, setup: Setup) -> None:
        source = await self.source("cut-off")

        async def cut() -> None:
            setup.hub._session("cut-off").end()

        self.meddling[id(source)] = cut
        try:
            await self.run(setup, "cut-off", source)
        except AgentUnreachable:
            pass
        else:
            raise AssertionError("the task outlived its session")
        assert await setup.hub.wait_connected(["cut-off"], 60)
        await self.goes_well(setup, "cut-off")

    async def is_refused(self, setup: Setup) -> None:
        source = await self.source("refused")
        report = await self.run(setup, "refused", source, target_path="/etc/trueup-test")
        assert (report.state, report.reason) == ("FAILED", "PathRefused")
        await self.goes_well(setup, "refused")


@dataclass(frozen=True)
class Held:
    """What this process has of everything."""

    files: int
    tasks: int
    threads: int
    memory: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        tasks = trio.lowlevel.current_statistics().tasks_living
        return cls(open_files(), tasks, threading.active_count(), tracemalloc.get_traced_memory()[0])

    def more_than(self, before: "Held") -> bool:
        return self.files > before.files or self.tasks > before.tasks


async def test_agents_at_work_and_in_trouble_leave_nothing(tmp_path: Path) -> None:
    work = Work(tmp_path)
    nodes = {name: make_node(tmp_path, name) for name in NAMES}
    enrolled = [node.enrolment(paired=True) for node in nodes.values()]
    async with running_hub(tmp_path, enrolled, serve=work.serve) as setup, trio.open_nursery() as nursery:
        looks = []
        for name, host in work.hosts.items():
            nodes[name].memory.remember_server(setup.hub.fingerprint)
            agent = setup.agent(nodes[name], partial(run_work, rules=host.rules, state_dir=host.state))
            nursery.start_soon(agent.run)
            looks.append((agent, DriftWatch(host.rules, host.state)))
        assert await setup.hub.wait_connected(NAMES, 60) == set(NAMES)
        held: list[Held] = []
        tracemalloc.start()
        try:
            for _ in range(ROUNDS):
                await work.round(setup)
                for agent, watch in looks:
                    assert agent.session is not None
                    (work.hosts["well"].target / "sub/small").write_bytes(b"edited")
                    await watch.look(agent.session)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(120):
                    while (now := Held.now()).more_than(held[0] if held else now):
                        await trio.testing.wait_all_tasks_blocked()
                held.append(now)
        finally:
            tracemalloc.stop()
        assert held[-1].memory - held[0].memory < SPARE, held
        # Those of trio are given back after ten idle seconds, and are few until then.
        assert max(each.threads for each in held) < 60
        nursery.cancel_scope.cancel()
