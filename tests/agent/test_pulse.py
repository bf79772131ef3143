"""A task that takes long is told from one that hangs: on a mock clock, over two sessions in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.errors import RemoteProtocolError
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link
from agent.pulse import Pulse, beat, quiet
from agent.routing import Session, TaskChannel
from agent.status import Board
from agent.wire.channel import Channel
from agent.wire.connection import Role
from agent.wire.messages import IndexBegin, Task, TaskReport, Work
from agent.workers import MAX_TASKS, Runner, Workers
from reconciler.sync.watch import SILENCE, AgentUnreachable, Watched
from tests.agent.syncing import Host, synchronise, write_tree
from tests.agent.test_link import in_session
from tests.connected import make_task, succeed

HOUR = 3600


@asynccontextmanager
async def sessions(
    tmp_path: Path, runner: Runner, *, limit: int = MAX_TASKS, backlog: int = CONTROL_BACKLOG
) -> AsyncIterator[tuple[Session, Session]]:
    """(agent's, primary's) session, both running; the agent's has workers."""
    pairs = []
    for bulk, timing in ((False, CONTROL_TIMING), (True, BULK_TIMING)):
        ends = in_session(bulk)
        here, there = trio.testing.memory_stream_pair()
        size = 0 if bulk else backlog
        pairs.append(
            (
                Link(here, ends[Role.AGENT], timing=timing, backlog=size),
                Link(there, ends[Role.PRIMARY], timing=timing, backlog=CONTROL_BACKLOG),
            )
        )
    (control, control_there), (bulk_here, bulk_there) = pairs
    async with trio.open_nursery() as nursery:
        workers = Workers(runner, Board(tmp_path, node="n", version="1"), nursery, limit=limit)

        def on_task(task: Work, channel: TaskChannel) -> None:
            workers.start(agent, task, channel)

        agent = Session(Role.AGENT, control, bulk_here, on_task=on_task, on_cancel=lambda cancel: None)
        primary = Session(Role.PRIMARY, control_there, bulk_there)
        nursery.start_soon(agent.run)
        nursery.start_soon(primary.run)
        yield agent, primary
        nursery.cancel_scope.cancel()


async def ask(primary: Session, task: Task) -> TaskReport | AgentUnreachable:
    channel = primary.open(task.id)
    try:
        await channel.send(task)
        message, _ = await Watched(channel, "n").receive()
        assert isinstance(message, TaskReport)
        return message
    except AgentUnreachable as error:
        return error
    finally:
        primary.close(channel)


async def pass_time(clock: trio.testing.MockClock, seconds: float) -> None:
    """Steps short enough for pings; threads end before each, as they would in so much time."""
    for _ in range(int(seconds / 15)):
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(15)
    await trio.testing.wait_all_tasks_blocked()


async def work_for(seconds: float) -> None:
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        await trio.sleep(45)
        beat()


async def test_a_task_that_gets_on_may_take_hours(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        await work_for(3 * HOUR)
        return await succeed(task, channel)

    outcome: list[TaskReport | AgentUnreachable] = []
    ended = trio.Event()
    async with sessions(tmp_path, runner) as (_, primary), trio.open_nursery() as nursery:

        async def push() -> None:
            outcome.append(await ask(primary, make_task("t1")))
            ended.set()

        nursery.start_soon(push)
        await began.wait()
        await pass_time(mock_clock, 2.9 * HOUR)
        assert not outcome
        await pass_time(mock_clock, 0.2 * HOUR)
        await ended.wait()
    assert isinstance(outcome[0], TaskReport)


async def test_a_task_that_hangs_is_given_up_while_the_session_lives(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        await work_for(HOUR)
        await trio.sleep_forever()
        raise AssertionError

    outcome: list[tuple[float, TaskReport | AgentUnreachable]] = []
    async with sessions(tmp_path, runner) as (agent, primary), trio.open_nursery() as nursery:

        async def push() -> None:
            outcome.append((trio.current_time(), await ask(primary, make_task("t1"))))
            outcome.append((trio.current_time(), outcome[0][1]))

        nursery.start_soon(push)
        await began.wait()
        began_at = trio.current_time()
        await pass_time(mock_clock, HOUR + SILENCE - 30)
        assert not outcome
        await pass_time(mock_clock, 150)
        assert agent.lost is None
    assert isinstance(outcome[0][1], AgentUnreachable)
    assert HOUR + SILENCE - 30 <= outcome[1][0] - began_at <= HOUR + SILENCE + 120


async def test_a_task_that_waits_for_another_gets_on_with_it(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        if task.id == "first":
            await work_for(HOUR)
        return await succeed(task, channel)

    outcome: dict[str, TaskReport | AgentUnreachable] = {}
    async with sessions(tmp_path, runner, limit=1) as (_, primary), trio.open_nursery() as nursery:

        async def push(name: str) -> None:
            outcome[name] = await ask(primary, make_task(name, target=f"/srv/{name}"))

        nursery.start_soon(push, "first")
        await began.wait()
        nursery.start_soon(push, "second")
        await pass_time(mock_clock, HOUR - 60)
        assert not outcome
        await pass_time(mock_clock, 120)
    assert {name: type(found) for name, found in outcome.items()} == dict.fromkeys(
        ("first", "second"), TaskReport
    )


async def test_a_quiet_step_may_take_as_long_as_it_said(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        with quiet(HOUR):
            began.set()
            await trio.sleep(HOUR - 60)
        return await succeed(task, channel)

    outcome: list[TaskReport | AgentUnreachable] = []
    async with sessions(tmp_path, runner) as (_, primary), trio.open_nursery() as nursery:

        async def push() -> None:
            outcome.append(await ask(primary, make_task("t1")))

        nursery.start_soon(push)
        await began.wait()
        await pass_time(mock_clock, HOUR)
    assert isinstance(outcome[0], TaskReport)


async def test_work_on_a_tree_is_felt(tmp_path: Path) -> None:
    """Each phase, in its threads: looking, hashing, writing."""
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {f"d{n}/file": b"x" * 1000 for n in range(20)})
    pulse = Pulse()
    pulse.install()
    await synchronise(source, host)
    first = pulse.beats
    assert first > 40
    (host.target / "d1/file").touch()
    await synchronise(source, host)
    assert pulse.beats > first + 20


@pytest.mark.parametrize("started", [False, True])
async def test_a_primary_that_sends_what_nobody_asked_for_is_left(tmp_path: Path, started: bool) -> None:
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        await trio.sleep_forever()
        raise AssertionError

    async with sessions(tmp_path, runner, limit=1) as (agent, primary):
        await primary.open("t0").send(make_task("t0"))
        await began.wait()
        name = "t0" if started else "t1"
        if not started:
            await primary.open(name).send(make_task(name))
            await trio.testing.wait_all_tasks_blocked()
        await primary.bulk.send(IndexBegin(task=name, entries=1, bytes=1))
        with trio.fail_after(10):
            while agent.lost is None:
                await trio.testing.wait_all_tasks_blocked()
    assert isinstance(agent.lost, RemoteProtocolError)
    assert "no task has asked for" in str(agent.lost)


async def test_a_refusal_that_finds_no_room_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the primary would wait for the answer that was dropped."""
    monkeypatch.setattr("agent.workers.MAX_WAITING", 0)
    async with sessions(tmp_path, succeed, backlog=0) as (agent, primary):
        channel = primary.open("t1")
        await channel.send(make_task("t1"))
        await channel.send(make_task("t1"))
        with trio.fail_after(10):
            while agent.lost is None:
                await primary.control.send(make_task("t1"))
    assert isinstance(agent.lost, RemoteProtocolError)
