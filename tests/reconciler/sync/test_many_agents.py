"""Many agents that have nothing to do: what each costs, and that nothing is left of those that went away."""

import os
import tracemalloc
from pathlib import Path

import trio
import trio.lowlevel
import trio.testing

from tests.connected import make_node, running_hub

AGENTS = 25

MOST = 400 * 1024
"""Bytes of one idle agent, both ends of its two connections together; a buffer of a stream that waits for
something has 256 KiB."""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_idle_agents_cost_little_and_leave_nothing(tmp_path: Path) -> None:
    nodes = [make_node(tmp_path, f"node-{number}") for number in range(AGENTS)]
    names = {node.name for node in nodes}
    async with running_hub(tmp_path, [node.enrolment(paired=True) for node in nodes]) as setup:
        for node in nodes:
            node.memory.remember_server(setup.hub.fingerprint)
        agents = [setup.agent(node) for node in nodes]
        await trio.testing.wait_all_tasks_blocked()
        files, tasks = open_files(), trio.lowlevel.current_statistics().tasks_living
        tracemalloc.start()
        try:
            with trio.fail_after(300):
                async with trio.open_nursery() as nursery:
                    for agent in agents:
                        nursery.start_soon(agent.run)
                    assert await setup.hub.wait_connected(names, 300) == names
                    used, _ = tracemalloc.get_traced_memory()
                    assert used / AGENTS < MOST
                    nursery.cancel_scope.cancel()
                while setup.hub.connected():
                    await setup.hub.wait_change()
                while trio.lowlevel.current_statistics().tasks_living > tasks or open_files() > files:
                    await trio.lowlevel.checkpoint()
        finally:
            tracemalloc.stop()
