"""Agents in this process and agents that are processes of their own take one tree from one hub at once."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from agent.task import run_task
from agent.wire.channel import Channel
from agent.wire.messages import Task, TaskReport
from reconciler.sync.serving import TreeSource, serve_task
from tests.agent.syncing import Host, modes, read_tree, write_tree
from tests.agentprocess import agent_environment, agent_process, run_agent_command
from tests.connected import Node, Setup, make_node, running_hub

SIMULATED, REAL = 20, 3
PATIENCE = 300
KIB = 1024


async def simulate(setup: Setup, node: Node, host: Host) -> None:
    async def runner(task: Task, channel: Channel) -> TaskReport:
        return await run_task(task, channel, rules=host.rules, state_dir=host.state)

    await setup.agent(node, runner).run()


async def join(setup: Setup, node: Node, host: Host) -> Path:
    """As on a host of its own; the configuration for `trueup-agent run`."""
    config = host.base / "agent.toml"
    joined = await run_agent_command(
        *("join", "--config", str(config), "--primary", str(setup.address), "--pin", setup.hub.fingerprint),
        *("--node", node.name, "--root", str(host.base / "srv"), "--state-dir", str(host.state)),
        environ=agent_environment(SYNC_NODE_TOKEN=node.token.to_text()),
        deadline=PATIENCE,
    )
    assert joined.returncode == 0, joined.stderr
    return config


async def test_all_of_a_mixed_crowd_end_equal(tmp_path: Path) -> None:
    """First with nothing there, then with some of the tree changed. Some files have several blocks, and
    frames are large enough to be encrypted in threads."""
    tree = {f"d{number % 5}/f{number}": os.urandom(number * 30) for number in range(60)}
    tree |= {f"large{number}": os.urandom(600 * KIB + number) for number in range(3)}
    directory = write_tree(tmp_path / "source", tree | {"none": None, "link": "d1"})
    names = [f"node-{number:02}" for number in range(SIMULATED + REAL)]
    nodes = {name: make_node(tmp_path, name) for name in names}
    hosts = {name: Host(tmp_path / "hosts" / name) for name in names}
    real = names[SIMULATED:]
    enrolments = [node.enrolment(paired=node.name not in real) for node in nodes.values()]
    async with (
        running_hub(tmp_path, enrolments, serve=serve_task) as setup,
        trio.open_nursery() as nursery,
        AsyncExitStack() as processes,
    ):
        for name, node in nodes.items():
            if name in real:
                config = await join(setup, node, hosts[name])
                await processes.enter_async_context(agent_process(config))
            else:
                node.memory.remember_server(setup.hub.fingerprint)
                nursery.start_soon(simulate, setup, node, hosts[name])
        assert await setup.hub.wait_connected(nodes, PATIENCE) == set(nodes)

        async def bring(name: str, source: TreeSource) -> None:
            task = hosts[name].task(source.tree, id=f"{name}-{source.tree.hex()[:8]}")
            report = await setup.hub.run_task(name, source.offered(task), source)
            assert report.state == "SUCCESS", report

        for change in ({}, {"d1/f1": b"other", "large1": os.urandom(700 * KIB)}):
            source = await TreeSource.build(write_tree(directory, change))
            async with trio.open_nursery() as tasks:
                for name in nodes:
                    tasks.start_soon(bring, name, source)
            for name in nodes:
                assert read_tree(hosts[name].target) == read_tree(directory), name
                assert modes(hosts[name].target) == modes(directory), name
        nursery.cancel_scope.cancel()
