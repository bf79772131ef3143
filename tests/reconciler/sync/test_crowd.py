"""Many agents that take the same tree at once: all end equal, and the primary holds it for none of them."""

import os
import tracemalloc
from pathlib import Path

import trio

from agent.blocks import block_count
from agent.wire.bulk import BlockRequest, BlockResponseBin
from agent.wire.messages import IndexEnd, SyncStart, TaskReport
from reconciler.sync.serving import TreeSource, serve_task
from tests.agent.memorysession import session_task
from tests.agent.syncing import Host, modes, read_tree, write_tree
from tests.channelpair import MemoryChannel, channel_pair

MIB = 1024 * 1024
CROWD = 16
EACH = 6 * MIB
"""Of an agent at the primary: frames read ahead, on their way, and as they arrive. The tree has more."""


async def take_all(agent: MemoryChannel, source: TreeSource) -> None:
    """An agent that asks for every block, ten at a time, and keeps none."""
    await agent.send(SyncStart(task="t1"))
    while not isinstance((await agent.receive())[0], IndexEnd):
        pass
    wanted = [
        (ordinal, number)
        for ordinal, entry in enumerate(source.entries)
        for number in range(block_count(entry.size))
    ]
    for at in range(0, len(wanted), 10):
        asked = wanted[at : at + 10]
        await agent.send(BlockRequest(task="t1", blocks=tuple(asked)))
        missing = len(asked)
        while missing:
            message, payload = await agent.receive()
            assert isinstance(message, BlockResponseBin)
            assert payload
            missing -= len(message.blocks)
    await agent.send(TaskReport(task="t1", state="SUCCESS"))


async def peak_with(agents: int, source: TreeSource) -> int:
    tracemalloc.start()
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(agents):
                primary, agent = channel_pair()
                nursery.start_soon(serve_task, primary, source)
                nursery.start_soon(take_all, agent, source)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_memory_does_not_grow_with_agents_times_the_tree(tmp_path: Path) -> None:
    tree = {f"d{number % 7}/f{number}": os.urandom(64 * 1024) for number in range(300)}
    source = await TreeSource.build(write_tree(tmp_path / "source", tree))
    assert source.bytes > 3 * EACH
    one = await peak_with(1, source)
    assert await peak_with(CROWD, source) - one < (CROWD - 1) * EACH


async def test_a_crowd_ends_equal(tmp_path: Path) -> None:
    tree = {f"d{number % 7}/f{number}": os.urandom(number * 20) for number in range(150)}
    directory = write_tree(tmp_path / "source", tree | {"none": None, "link": "d1"})
    source = await TreeSource.build(directory)
    hosts = [Host(tmp_path / f"host{number}") for number in range(CROWD)]
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(session_task, source, host)
    for host in hosts:
        assert read_tree(host.target) == read_tree(directory)
        assert modes(host.target) == modes(directory)
