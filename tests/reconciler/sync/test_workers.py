"""Worker processes: real ones, with real agents over TLS, that carry what the primary serves and judges."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from agent.errors import TransferFailed
from agent.link import LinkLost, Timing
from agent.task import run_task
from agent.wire.bulk import BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.messages import HelloAck, Task, TaskReport
from reconciler.sync import workers
from reconciler.sync.hub import AgentUnreachable, Hub
from reconciler.sync.serving import TreeSource, serve_task
from tests.agent.syncing import Host, read_tree, write_tree
from tests.agentprocess import ROOT
from tests.connected import DEADLINE, Node, Setup, connected, make_node, make_task, running_hub

MIB = 1024 * 1024
PATIENCE = 120.0
TREE: dict[str, object] = {
    "large": os.urandom(9 * MIB),
    "link": "large",
    **{f"d{number % 5}/small{number}": os.urandom(number * 50) for number in range(200)},
}


async def ready(hub: Hub, count: int = 1) -> list[int]:
    """Wait for so many workers; their process ids."""
    with trio.fail_after(PATIENCE):
        while hub.workers < count:
            await hub._workers.wait_change()
    return list(hub._workers.pids)


def carried(hub: Hub) -> list[int]:
    """The connections of each worker."""
    return [worker.connections for worker in hub._workers._begun]


def some_nodes(tmp_path: Path, count: int) -> dict[str, Node]:
    names = [f"node-{number}" for number in range(count)]
    nodes = {name: make_node(tmp_path, name) for name in names}
    for node in nodes.values():
        node.memory.identity(node.name)
    return nodes


class Crowd:
    """Agents of a hub that have a data plane, each with a host of its own."""

    def __init__(self, tmp_path: Path, setup: Setup, nodes: Mapping[str, Node]) -> None:
        self.setup = setup
        self.nodes = nodes
        self.hosts = {name: Host(tmp_path / "hosts" / name) for name in nodes}

    async def begin(self, nursery: trio.Nursery) -> None:
        for node in self.nodes.values():
            node.memory.remember_server(self.setup.hub.fingerprint)
            nursery.start_soon(self._agent(node).run)
        assert await self.setup.hub.wait_connected(self.nodes, PATIENCE) == set(self.nodes)

    def _agent(self, node: Node):  # type: ignore[no-untyped-def]
        async def runner(task: Task, channel: Channel) -> TaskReport:
            host = self.hosts[node.name]
            return await run_task(task, channel, rules=host.rules, state_dir=host.state)

        return self.setup.agent(node, runner)

    async def bring(self, name: str, source: TreeSource, id: str = "t1") -> None:
        task = self.hosts[name].task(source.tree, id=id)
        report = await self.setup.hub.run_task(name, source.offered(task), source)
        assert report.state == "SUCCESS", report
        assert read_tree(self.hosts[name].target) == read_tree(source.directory)


async def test_agents_at_several_workers_take_a_tree_that_is_read_once(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 4)
    source = await TreeSource.build(write_tree(tmp_path / "source", TREE))
    enrolments = [node.enrolment(paired=True) for node in nodes.values()]
    async with (
        running_hub(tmp_path, enrolments, workers=2, serve=serve_task) as setup,
        trio.open_nursery() as nursery,
    ):
        await ready(setup.hub, 2)
        crowd = Crowd(tmp_path, setup, nodes)
        await crowd.begin(nursery)
        assert carried(setup.hub) == [4, 4]  # two connections of each agent
        with source.frames.in_use(), source.frames.in_use():
            first, *others = nodes
            await crowd.bring(first, source)
            once = source.frames.reads
            async with trio.open_nursery() as tasks:
                for name in others:
                    tasks.start_soon(crowd.bring, name, source)
            assert source.frames.reads == once
        nursery.cancel_scope.cancel()


async def test_a_node_that_has_just_paired_comes_through_the_worker(tmp_path: Path) -> None:
    """Also after others are gone, each time at once: the worker knows before the agent does."""
    nodes = some_nodes(tmp_path, 3)
    async with running_hub(tmp_path, [node.enrolment() for node in nodes.values()], workers=1) as setup:
        await ready(setup.hub)
        for node in nodes.values():
            await setup.pair(node)
            node.memory.remember_server(setup.hub.fingerprint)
            async with connected(setup, node):
                assert carried(setup.hub) == [2]
            with trio.fail_after(DEADLINE):
                while carried(setup.hub) != [0]:
                    await trio.lowlevel.checkpoint()


async def test_a_hub_that_ends_before_its_workers_are_there_leaves_nothing(tmp_path: Path) -> None:
    before = open_files("self")
    async with running_hub(tmp_path, workers=2) as setup:
        address = setup.address
    assert open_files("self") == before
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(address.host, address.port)


async def test_nodes_that_become_many_get_workers(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 3)
    enrolments = [node.enrolment(paired=True) for node in nodes.values()]
    async with running_hub(tmp_path, enrolments[:1], workers=0) as setup:
        setup.hub._workers._wanted = lambda count: count - 1
        for node in nodes.values():
            node.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, nodes["node-0"]):
            await setup.hub.update(enrolments)
            await ready(setup.hub, 2)
            async with connected(setup, nodes["node-1"]):
                # Who was there before has not been disturbed.
                assert carried(setup.hub) == [1, 1]
                assert setup.hub.connected() == {"node-0", "node-1"}
        await setup.hub.update(enrolments[:1])
        assert setup.hub.workers == 2


async def test_a_revoked_node_is_off_though_its_worker_does_nothing(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], workers=1) as setup:
        (pid,) = await ready(setup.hub)
        control, accepted = await setup.hello(node)
        assert isinstance(accepted, HelloAck)
        bulk, _ = await setup.hello(node, session=accepted.session)
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        os.kill(pid, signal.SIGSTOP)
        try:
            await setup.hub.update([])
            assert setup.hub.connected() == frozenset()
            with trio.fail_after(DEADLINE):
                for link in (control, bulk):
                    while await link.stream.receive_some(100):
                        pass
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_worker_that_is_killed_in_a_transfer_costs_an_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = some_nodes(tmp_path, 2)
    killed: list[int] = []

    class Killing:
        """The channel of a task whose worker is killed once a frame was sent."""

        def __init__(self, channel: Channel) -> None:
            self._channel = channel
            self.receive = channel.receive

        async def send(self, message: object, payload: object = None) -> None:
            await self._channel.send(message, payload)  # type: ignore[arg-type]
            if isinstance(message, BlockResponseBin) and not killed:
                killed.extend(setup.hub._workers.pids)
                os.kill(killed[0], signal.SIGKILL)

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        return await serve_task(Killing(channel), source)

    source = await TreeSource.build(write_tree(tmp_path / "source", TREE))
    enrolments = [node.enrolment(paired=True) for node in nodes.values()]
    async with (
        running_hub(tmp_path, enrolments, workers=1, serve=serve) as setup,
        trio.open_nursery() as nursery,
    ):
        await ready(setup.hub)
        crowd = Crowd(tmp_path, setup, nodes)
        await crowd.begin(nursery)
        with pytest.raises(AgentUnreachable, match="went away during the task"):
            await crowd.bring("node-0", source)
        assert await setup.hub.wait_connected(nodes, PATIENCE) == set(nodes)
        await crowd.bring("node-0", source, "t2")
        await crowd.bring("node-1", source, "t2")
        (pid,) = await ready(setup.hub)
        assert [pid] != killed
        nursery.cancel_scope.cancel()
    (line,) = [record.getMessage() for record in caplog.records if "worker process" in record.getMessage()]
    assert line.startswith("a worker process for agents was ended by SIGKILL; its agents connect again")


async def test_a_worker_that_hangs_is_ended_and_another_one_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], workers=1) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        # Only now, so that the start has its time.
        (pid,) = await ready(setup.hub)
        monkeypatch.setattr(workers, "PATIENCE", 0.1)
        os.kill(pid, signal.SIGSTOP)
        (worker,) = setup.hub._workers._begun
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker._watch, lambda: None)
            while setup.hub._workers.pids == (pid,):
                await setup.hub._workers.wait_change()
            monkeypatch.setattr(workers, "PATIENCE", PATIENCE)
            nursery.cancel_scope.cancel()
        await ready(setup.hub)
        async with connected(setup, node):
            assert carried(setup.hub) == [2]
    assert "a worker process for agents did not answer for 0.1 seconds and was ended" in caplog.text


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (["/nowhere/python"], "cannot be started: No such file"),
        ([sys.executable, "-c", "raise SystemExit('no such module')"], "ended with code 1 (no such module)"),
    ],
)
async def test_where_no_worker_can_be_started_the_primary_serves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    program: list[str],
    why: str,
) -> None:
    monkeypatch.setattr(workers, "command", lambda _fd, _directory: program)
    monkeypatch.setattr(workers, "READY_DEADLINE", PATIENCE)
    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], workers=2) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, node):
            assert setup.hub.workers == 0
    assert f"a worker process for agents {why}" in caplog.text


async def test_an_agent_that_takes_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.sync.reception.BULK_TIMING", Timing(ping=0.2, stall=0.5))

    async def flood(channel: Channel, source: TreeSource) -> TaskReport:
        payload = os.urandom(MIB)
        while True:
            await channel.send(BlockResponseBin(task="t1", size=MIB, blocks=()), payload)

    node = make_node(tmp_path)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], workers=1, serve=flood) as setup:
        await ready(setup.hub)
        _control, accepted = await setup.hello(node)
        assert isinstance(accepted, HelloAck)
        await setup.hello(node, session=accepted.session)
        assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
        source = await TreeSource.build(write_tree(tmp_path / "source", {}))
        # As one or the other: the link says it, and then the session is over.
        lost = pytest.raises((AgentUnreachable, TransferFailed), match=r"took nothing for 0\.5 seconds")
        with trio.fail_after(PATIENCE), lost:
            await setup.hub.run_task("web-1", make_task("t1"), source)


async def test_nothing_is_left_of_agents_that_went_away(tmp_path: Path) -> None:
    nodes = some_nodes(tmp_path, 5)
    enrolments = [node.enrolment(paired=True) for node in nodes.values()]
    source = await TreeSource.build(write_tree(tmp_path / "source", TREE))
    before = open_files("self")
    async with running_hub(tmp_path, enrolments, workers=1, serve=serve_task) as setup:
        (pid,) = await ready(setup.hub)
        here, there = open_files("self"), open_files(pid)
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                crowd = Crowd(tmp_path, setup, nodes)
                await crowd.begin(nursery)
                async with trio.open_nursery() as tasks:
                    for name in nodes:
                        tasks.start_soon(crowd.bring, name, source)
                nursery.cancel_scope.cancel()
            stranger = make_node(tmp_path, "node-0", directory="stranger")
            with pytest.raises(LinkLost):
                await setup.hello(stranger)
            while setup.opened:
                await trio.aclose_forcefully(setup.opened.pop())
        with trio.fail_after(PATIENCE):
            while open_files("self") > here or open_files(pid) > there:
                await trio.lowlevel.checkpoint()
    with trio.fail_after(PATIENCE):
        while open_files("self") > before:
            await trio.lowlevel.checkpoint()


def open_files(process: int | str) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


PRIMARY = """
import sys, trio
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from reconciler.settings_values import Address
from reconciler.sync.hub import Hub

async def main():
    hub = Hub(
        address=Address("127.0.0.1", 0),
        key=Ed25519PrivateKey.generate(),
        tls_dir=Path(sys.argv[1]),
        on_paired=None,
        workers=lambda nodes: 2,
    )
    async with hub:
        while hub.workers < 2:
            await hub._workers.wait_change()
        print(*hub._workers.pids, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""


@pytest.mark.parametrize("killed", [True, False])
async def test_workers_end_with_their_primary(tmp_path: Path, killed: bool) -> None:
    primary = await trio.lowlevel.open_process(
        [sys.executable, "-c", PRIMARY, str(tmp_path / "tls")],
        cwd=ROOT,
        env={"SECRET": "of the primary alone", "PATH": os.defpath},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert primary.stdin is not None
    assert primary.stdout is not None
    with trio.fail_after(PATIENCE):
        line = b""
        while not line.endswith(b"\n"):
            line += await primary.stdout.receive_some()
        pids = list(map(int, line.split()))
        assert len(pids) == 2
        watched = [os.pidfd_open(pid) for pid in pids]
        for pid in pids:
            assert b"SECRET" not in await trio.Path(f"/proc/{pid}/environ").read_bytes()
            for number in (
                signal.SIGINT,
                signal.SIGTERM,
            ):  # as a terminal or a service manager sends them to all
                os.kill(pid, number)
        if killed:
            primary.kill()
        else:
            await primary.stdin.aclose()
        for fd in watched:
            await trio.lowlevel.wait_readable(fd)
            os.close(fd)
        assert await primary.wait() == (-signal.SIGKILL if killed else 0)
    await primary.stdin.aclose()
    await primary.stdout.aclose()


async def test_a_worker_takes_little_memory_and_shows_none_of_it(tmp_path: Path) -> None:
    async with running_hub(tmp_path, workers=1) as setup:
        (pid,) = await ready(setup.hub)
        limits = await trio.Path(f"/proc/{pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4] == "0"
        status = await trio.Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        assert int(resident.split()[1]) < 40 * 1024


def test_a_worker_has_none_of_the_primarys_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_MASTER_KEY", "secret")
    assert set(workers.environment()) == {"PATH", "LANG", "PYTHONPATH"}
