"""Agents that are lost or silent in a task, and what one of them cannot do to another, or to the primary."""

import logging
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.errors import RemoteProtocolError, TransferFailed
from agent.link import LinkLost
from agent.wire.bulk import BlockRequest
from agent.wire.channel import Channel
from agent.wire.messages import IndexEnd, Task, TaskProgress, TaskReport
from reconciler.sync.hub import AgentUnreachable
from reconciler.sync.serving import TreeSource
from tests.connected import (
    DEADLINE,
    SOURCE,
    connected,
    hub_and_agent,
    make_node,
    make_task,
    raw_session,
    running_hub,
    succeed,
    until,
    until_lost,
)


async def test_an_agent_that_dies_in_a_task(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        await trio.sleep_forever()
        raise AssertionError

    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        node.memory.remember_server(setup.hub.fingerprint)

        async def die_in_the_middle() -> None:
            async with connected(setup, node, runner):
                await began.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(die_in_the_middle)
            await setup.hub.wait_connected(["web-1"], DEADLINE)
            with pytest.raises(AgentUnreachable, match="web-1"):
                await setup.hub.run_task("web-1", make_task("t1"), None)


async def test_a_revoked_agent_in_a_task(tmp_path: Path) -> None:
    began, ended = trio.Event(), trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        try:
            await channel.receive()
        finally:
            ended.set()
        raise AssertionError

    async with hub_and_agent(tmp_path, runner) as setup, trio.open_nursery() as nursery:

        async def revoke() -> None:
            await began.wait()
            await setup.hub.update([])

        nursery.start_soon(revoke)
        with trio.fail_after(120):
            with pytest.raises(AgentUnreachable, match="removed or changed"):
                await setup.hub.run_task("web-1", make_task("t1"), None)
            await ended.wait()


async def test_an_agent_that_says_nothing_about_a_task(tmp_path: Path) -> None:
    async def runner(task: Task, channel: Channel) -> TaskReport:
        if task.id == "t1":
            await trio.sleep_forever()
        return await succeed(task, channel)

    async with hub_and_agent(tmp_path, runner, silence=5.0) as setup:
        with pytest.raises(AgentUnreachable, match="did not get on"):
            await setup.hub.run_task("web-1", make_task("t1"), None)
        assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"


async def test_an_agent_that_never_ends_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, cancelled = trio.Event(), trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        try:
            while True:
                await channel.send(TaskProgress(task=task.id))
                await trio.sleep(0.01)
        finally:
            cancelled.set()

    async with hub_and_agent(tmp_path, runner) as setup:
        longest = 0.1
        while not began.is_set():  # the time counts from before that
            longest *= 2
            monkeypatch.setattr("reconciler.sync.hub.LONGEST", longest)
            with pytest.raises(AgentUnreachable, match="did not end the task"):
                await setup.hub.run_task("web-1", make_task(f"within {longest}"), None)
        with trio.fail_after(120):
            await cancelled.wait()


async def test_a_newer_session_replaces_the_older(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)]) as setup,
        trio.open_nursery() as nursery,
    ):
        older = await raw_session(setup, node, nursery)
        changed = trio.Event()

        async def watch() -> None:
            await setup.hub.wait_change()
            changed.set()

        nursery.start_soon(watch)
        newer = await raw_session(setup, node, nursery)
        await changed.wait()
        await until_lost(older)
        assert newer.lost is None
        assert setup.hub.connected() == {"web-1"}
        nursery.cancel_scope.cancel()


# --- what one agent cannot do to another, or to the primary ------------------------------------


async def test_an_agent_gets_nothing_of_anothers_task(tmp_path: Path) -> None:
    """All pairs of who asks and whose task it is: only the owner is answered."""
    nodes = [make_node(tmp_path, f"web-{n}") for n in range(3)]
    served: list[str] = []

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        while True:
            message, _ = await channel.receive()
            if isinstance(message, TaskReport):
                return message
            if isinstance(message, BlockRequest):
                served.append(message.task)
                await channel.send(IndexEnd(task=message.task, tree=bytes(32)))

    async with (
        running_hub(tmp_path, [node.enrolment(paired=True) for node in nodes], serve=serve) as setup,
        trio.open_nursery() as nursery,
    ):
        sessions = [await raw_session(setup, node, nursery) for node in nodes]
        for node in nodes:
            task = make_task(f"task-of-{node.name}", observe=False)
            nursery.start_soon(setup.hub.run_task, node.name, task, SOURCE)
        for asker, session in zip(nodes, sessions, strict=True):
            cancelled = trio.Event()
            session._on_cancel = lambda cancel, event=cancelled: event.set()
            for owner in nodes:
                name = f"task-of-{owner.name}"
                if owner is asker:
                    continue
                await session.bulk.send(BlockRequest(task=name, blocks=((0, 0),)))
                with trio.fail_after(120):
                    await cancelled.wait()
        assert served == []
        for node, session in zip(nodes, sessions, strict=True):
            name = f"task-of-{node.name}"
            await session.bulk.send(BlockRequest(task=name, blocks=((0, 0),)))
            await session.control.send(TaskReport(task=name, state="SUCCESS"))
        for node in nodes:
            while setup.hub.traffic(f"task-of-{node.name}").received < 100:
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_report_for_another_nodes_task_is_dropped(tmp_path: Path) -> None:
    one, two = make_node(tmp_path), make_node(tmp_path, "web-2")
    reports: list[TaskReport] = []
    async with (
        running_hub(tmp_path, [one.enrolment(paired=True), two.enrolment(paired=True)]) as setup,
        trio.open_nursery() as nursery,
    ):
        mine, theirs = [await raw_session(setup, node, nursery) for node in (one, two)]

        async def run() -> None:
            reports.append(await setup.hub.run_task("web-1", make_task("t1"), None))
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.control.send(TaskReport(task="t1", state="SUCCESS", message="forged"))
        await theirs.control.send(TaskReport(task="t1", state="SUCCESS", message="forged"))
        await mine.control.send(TaskReport(task="t1", state="FAILED", message="true"))
    assert [report.message for report in reports] == ["true"]


async def test_an_agent_that_asks_without_end_is_disconnected(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    asked = trio.Event()

    async def never_serve(channel: Channel, source: TreeSource) -> TaskReport:
        await asked.wait()
        raise TransferFailed("gave up")

    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)], serve=never_serve) as setup,
        trio.open_nursery() as nursery,
    ):
        session = await raw_session(setup, node, nursery)

        async def run() -> None:
            with pytest.raises(AgentUnreachable):
                await setup.hub.run_task("web-1", make_task("t1", observe=False), SOURCE)

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        request = BlockRequest(task="t1", blocks=tuple((n, 2**40) for n in range(60_000)))
        with pytest.raises(LinkLost):
            while True:
                await session.bulk.send(request)
        await until(setup, lambda: setup.hub.connected() == frozenset())
        asked.set()
    assert not isinstance(session.lost, RemoteProtocolError), "only the primary knows the reason"


async def test_what_the_serving_side_finds_wrong_ends_the_session(tmp_path: Path) -> None:
    node = make_node(tmp_path)

    async def serve(channel: Channel, source: TreeSource) -> TaskReport:
        raise RemoteProtocolError("block 9 was asked for and is none")

    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)], serve=serve) as setup,
        trio.open_nursery() as nursery,
    ):
        session = await raw_session(setup, node, nursery)
        with pytest.raises(RemoteProtocolError, match="block 9"):
            await setup.hub.run_task("web-1", make_task("t1", observe=False), SOURCE)
        await until_lost(session)


@pytest.mark.parametrize("which", ["control", "bulk"])
@pytest.mark.parametrize(
    "data", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\x0b\x81\xa4type\xa4ping"]
)
async def test_malformed_frames_in_a_session(
    tmp_path: Path, which: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trueup")
    node = make_node(tmp_path)
    async with (
        running_hub(tmp_path, [node.enrolment(paired=True)]) as setup,
        trio.open_nursery() as nursery,
    ):
        session = await raw_session(setup, node, nursery)
        link = session.control if which == "control" else session.bulk
        await link.stream.send_all(data)
        await until(setup, lambda: setup.hub.connected() == frozenset())
        await until_lost(session)
    assert [record for record in caplog.records if record.exc_info] == []
    assert any("web-1 disconnected: the peer" in record.getMessage() for record in caplog.records)
