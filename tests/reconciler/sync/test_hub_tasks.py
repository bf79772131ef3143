"""Tasks over real sessions: routing, bulk data, how many at once, cancelling, mistakes and backpressure."""

from pathlib import Path

import msgspec
import pytest
import trio

from agent.routing import INBOX_LIMIT, TaskChannel
from agent.wire.bulk import BlockRequest, BlockResponseBin
from agent.wire.channel import Channel
from agent.wire.connection import Role
from agent.wire.messages import Cancel, IndexBegin, RenderedContent, SyncStart, Task, TaskReport
from reconciler.errors import StepFailed
from reconciler.sync.hub import AgentUnreachable
from reconciler.sync.serving import TreeSource
from tests.canaries import canary
from tests.connected import SOURCE, hub_and_agent, make_task, running_hub, succeed


async def test_a_report_ends_a_task_in_one_round_trip(tmp_path: Path) -> None:
    async with hub_and_agent(tmp_path) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1"), None)
        assert report.seconds > 0
        assert msgspec.structs.replace(report, seconds=0.0) == TaskReport(
            task="t1", state="SUCCESS", established=bytes(32)
        )
        traffic = setup.hub.traffic("t1")
        assert 0 < traffic.sent < 500
        assert 0 < traffic.received < 500
        assert setup.hub.traffic("unknown").sent == 0


async def test_a_node_that_is_not_connected(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as setup:
        with pytest.raises(AgentUnreachable, match="web-9"):
            await setup.hub.run_task("web-9", make_task("t1"), None)
        assert await setup.hub.wait_connected(["web-9"], 0) == set()


async def test_blocks_travel_and_are_counted(tmp_path: Path) -> None:
    size = 3_000_000
    blocks = [bytes([number]) * size for number in range(5)]

    async def runner(task: Task, channel: Channel) -> TaskReport:
        await channel.send(SyncStart(task=task.id))
        message, _ = await channel.receive()
        assert isinstance(message, IndexBegin)
        await channel.send(BlockRequest(task=task.id, blocks=tuple((0, n) for n in range(5))))
        received = []
        for _ in range(5):
            message, payload = await channel.receive()
            assert isinstance(message, BlockResponseBin)
            received.append(payload)
        message, payload = await channel.receive()
        assert isinstance(message, BlockResponseBin)
        assert payload == b""
        same = received == blocks
        return TaskReport(task=task.id, state="SUCCESS" if same else "FAILED", bytes_received=5 * size)

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        assert source is SOURCE
        message, _ = await channel.receive()
        assert isinstance(message, SyncStart)
        await channel.send(IndexBegin(task=message.task, entries=1, bytes=5 * size))
        request, _ = await channel.receive()
        assert isinstance(request, BlockRequest)
        for entry, number in request.blocks:
            answer = BlockResponseBin(task=message.task, size=size, blocks=((entry, number, size),))
            await channel.send(answer, bytearray(blocks[number]))
        await channel.send(BlockResponseBin(task=message.task, size=0, blocks=((9, 9, -1),)), bytearray())
        report, _ = await channel.receive()
        assert isinstance(report, TaskReport)
        return report

    async with hub_and_agent(tmp_path, runner, serve) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1", observe=False), SOURCE)
        assert report.state == "SUCCESS"
        assert 5 * size < setup.hub.traffic("t1").sent < 5 * size + 2000


async def test_several_tasks_at_once_one_at_a_time_for_a_target(tmp_path: Path) -> None:
    running: list[str] = []
    most: dict[str, int] = {}
    gate = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        running.append(task.target_path)
        for target in set(running):
            most[target] = max(most.get(target, 0), running.count(target))
        most["all"] = max(most.get("all", 0), len(running))
        if len(set(running)) == 3:
            gate.set()
        await gate.wait()
        running.remove(task.target_path)
        return TaskReport(task=task.id, state="SUCCESS")

    async with hub_and_agent(tmp_path, runner) as setup, trio.open_nursery() as nursery:
        for number in range(9):
            task = make_task(f"t{number}", target=f"/srv/{number % 3}")
            nursery.start_soon(setup.hub.run_task, "web-1", task, None)
    assert most == {"/srv/0": 1, "/srv/1": 1, "/srv/2": 1, "all": 3}


async def test_no_more_tasks_at_once_than_allowed(tmp_path: Path) -> None:
    running = most = 0
    full = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await full.wait()
        await trio.lowlevel.checkpoint()
        running -= 1
        return TaskReport(task=task.id, state="SUCCESS")

    async with hub_and_agent(tmp_path, runner) as setup, trio.open_nursery() as nursery:
        for number in range(12):
            task = make_task(f"t{number}", target=f"/srv/{number}")
            nursery.start_soon(setup.hub.run_task, "web-1", task, None)
    assert most == 4


async def test_giving_a_task_up_cancels_it_at_the_agent(tmp_path: Path) -> None:
    began, ended = trio.Event(), trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        if task.id == "t2":
            return await succeed(task, channel)
        try:
            began.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    async with hub_and_agent(tmp_path, runner) as setup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.hub.run_task, "web-1", make_task("t1"), None)
            await began.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(120):
            await ended.wait()
        # The target is free again, and the session was never hurt.
        assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"


async def test_a_cancel_of_an_unknown_task_is_harmless(tmp_path: Path) -> None:
    async with hub_and_agent(tmp_path) as setup:
        session = setup.hub._reception.sessions["web-1"]  # no public call sends one
        assert session.control.offer(Cancel(task="unknown"))
        assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"


async def test_a_mistake_in_one_task_leaves_the_agent_alive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def runner(task: Task, channel: Channel) -> TaskReport:
        if task.id == "t1":
            raise ZeroDivisionError("a bug")
        return await succeed(task, channel)

    async with hub_and_agent(tmp_path, runner) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1"), None)
        assert (report.state, report.reason) == ("FAILED", "InternalError")
        assert "ZeroDivisionError" in caplog.text
        assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"


async def test_a_message_for_another_task_is_our_mistake(tmp_path: Path) -> None:
    async def runner(task: Task, channel: Channel) -> TaskReport:
        assert isinstance(channel, TaskChannel)
        await channel.send(SyncStart(task="another"))
        raise AssertionError

    async with hub_and_agent(tmp_path, runner) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1"), None)
        assert (report.state, report.reason) == ("FAILED", "ProtocolError")


async def test_a_report_too_long_for_a_frame_still_arrives(tmp_path: Path) -> None:
    async def runner(task: Task, channel: Channel) -> TaskReport:
        return TaskReport(task=task.id, state="SUCCESS", files_written=7, warnings=("w" * 1000,) * 2000)

    async with hub_and_agent(tmp_path, runner) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1"), None)
        assert (report.state, report.files_written) == ("SUCCESS", 7)
        assert len(report.warnings) == 1


async def test_a_task_too_large_for_a_frame_says_so_without_its_content(tmp_path: Path) -> None:
    secret = canary("rendered")
    content = RenderedContent(path=".env", content=secret.encode() * 50_000)
    task = Task(
        id="t1",
        project="p",
        target_path="/srv/p",
        observe=False,
        strategy="mirror",
        tree=b"",
        rendered=(content,),
    )
    async with hub_and_agent(tmp_path) as setup:
        with pytest.raises(StepFailed, match="rendered files smaller") as caught:
            await setup.hub.run_task("web-1", task, SOURCE)
        assert secret not in str(caught.value)
        assert secret not in repr(task)
        assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"


# --- backpressure ------------------------------------------------------------------------------


async def test_a_slow_task_holds_up_neither_cancel_nor_the_next_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's inbox is full, its bulk connection stands still; control goes on as ever."""
    monkeypatch.setitem(INBOX_LIMIT, Role.AGENT, 100_000)
    began, ended = trio.Event(), trio.Event()
    sent = 0

    async def runner(task: Task, channel: Channel) -> TaskReport:
        if task.id != "slow":
            return await succeed(task, channel)
        await channel.send(SyncStart(task=task.id))
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        nonlocal sent
        await channel.receive()
        while True:
            await channel.send(BlockResponseBin(task="slow", size=50_000, blocks=()), bytes(50_000))
            sent += 50_000

    async with hub_and_agent(tmp_path, runner, serve) as setup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.hub.run_task, "web-1", make_task("slow", observe=False), SOURCE)
            await began.wait()
            for number in range(5):
                other = make_task(f"t{number}", target="/srv/other")
                with trio.fail_after(120):
                    assert (await setup.hub.run_task("web-1", other, None)).state == "SUCCESS"
            nursery.cancel_scope.cancel()
        with trio.fail_after(120):
            await ended.wait()
            # What was under way for the task that ended is dropped, so that bulk flows again.
            assert (await setup.hub.run_task("web-1", make_task("next"), None)).state == "SUCCESS"
        assert setup.hub.connected() == {"web-1"}
        assert sent > 0


async def test_a_receiver_that_pauses_gets_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(INBOX_LIMIT, Role.AGENT, 10_000)
    count = 300

    async def runner(task: Task, channel: Channel) -> TaskReport:
        await channel.send(SyncStart(task=task.id))
        for number in range(count):
            await trio.lowlevel.checkpoint()
            message, payload = await channel.receive()
            assert isinstance(message, BlockResponseBin)
            assert message.blocks == ((0, number, 9_000),)
            assert payload == bytes([number % 256]) * 9_000
        return TaskReport(task=task.id, state="SUCCESS")

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        await channel.receive()
        for number in range(count):
            answer = BlockResponseBin(task="t1", size=9_000, blocks=((0, number, 9_000),))
            await channel.send(answer, bytes([number % 256]) * 9_000)
        report, _ = await channel.receive()
        assert isinstance(report, TaskReport)
        return report

    async with hub_and_agent(tmp_path, runner, serve) as setup:
        report = await setup.hub.run_task("web-1", make_task("t1", observe=False), SOURCE)
        assert (report.state, report.message) == ("SUCCESS", "")


async def test_an_agent_takes_no_more_tasks_than_it_can_remember(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.workers.MAX_WAITING", 2)
    began, release = trio.Event(), trio.Event()
    running = 0

    async def runner(task: Task, channel: Channel) -> TaskReport:
        nonlocal running
        running += 1
        if running == 2:
            began.set()
        await release.wait()
        return await succeed(task, channel)

    async with hub_and_agent(tmp_path, runner) as setup, trio.open_nursery() as nursery:
        for name in ("t1", "t2"):
            nursery.start_soon(setup.hub.run_task, "web-1", make_task(name, target=f"/srv/{name}"), None)
        await began.wait()
        refused = await setup.hub.run_task("web-1", make_task("t3"), None)
        assert (refused.state, refused.reason) == ("FAILED", "Busy")
        release.set()
