"""One link on memory streams and a mock clock: keepalive, silence, stalls, cuts, and the writer's order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from agent.errors import LocalProtocolError, RemoteProtocolError, TrueupError
from agent.link import BULK_TIMING, CONTROL_TIMING, Link, LinkLost, Timing
from agent.wire.bulk import BlockResponseBin
from agent.wire.connection import Connection, Phase, Received, Role
from agent.wire.messages import AnyMessage, Cancel, Hello, HelloAck, Ping, Pong, SyncStart, TaskReport

HELLO = Hello(node="n", protocols=(4, 3, 2), agent_version="1", signature=b"")
ACCEPTED = HelloAck(accepted=True, protocol=4)


def in_session(bulk: bool = False) -> dict[Role, Connection]:
    ends = {role: Connection(role, Phase.HELLO) for role in Role}
    hello = Hello(
        node="n", protocols=(4, 3, 2), agent_version="1", signature=b"", session=b"s" if bulk else b""
    )
    for speaker, message in ((Role.AGENT, hello), (Role.PRIMARY, ACCEPTED)):
        data = b"".join(map(bytes, ends[speaker].send(message)))
        list(ends[speaker.other].receive_data(data))
    return ends


class Side:
    """A running link with what it received and how it ended."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.received: list[AnyMessage] = []
        self.error: TrueupError | None = None
        self.at = 0.0
        self.ended = trio.Event()
        self.arrived = trio.Event()

    async def run(self) -> None:
        try:
            await self.link.run(self._take)
        except TrueupError as error:
            self.error = error
        self.at = trio.current_time()
        self.ended.set()

    async def _take(self, received: Received) -> None:
        self.received.append(received.message)
        self.arrived.set()


@asynccontextmanager
async def linked(*, bulk: bool = False, timing: Timing | None = None) -> AsyncIterator[tuple[Side, Side]]:
    """(agent's, primary's) link, both running."""
    ends = in_session(bulk)
    here, there = trio.testing.memory_stream_pair()
    timing = timing or (BULK_TIMING if bulk else CONTROL_TIMING)
    agent = Side(Link(here, ends[Role.AGENT], timing=timing))
    primary = Side(Link(there, ends[Role.PRIMARY], timing=timing))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        nursery.start_soon(primary.run)
        yield agent, primary
        nursery.cancel_scope.cancel()


async def test_an_idle_link_lives_as_long_as_both_do(autojump_clock: trio.testing.MockClock) -> None:
    async with linked() as (agent, primary):
        await trio.sleep(20_000)
        assert (agent.error, primary.error) == (None, None)
        await agent.link.send(TaskReport(task="t", state="SUCCESS"))
        await primary.arrived.wait()
        assert [type(message) for message in primary.received] == [TaskReport], "pings are not delivered"


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_half_open_connection_ends_by_the_deadline(
    autojump_clock: trio.testing.MockClock, bulk: bool
) -> None:
    """The peer's host vanished: what we send is taken, and nothing ever comes back."""
    ends = in_session(bulk)
    stream, _vanished = trio.testing.memory_stream_pair()
    side = Side(Link(stream, ends[Role.AGENT], timing=CONTROL_TIMING))
    began = trio.current_time()
    await side.run()
    assert isinstance(side.error, LinkLost)
    assert "nothing was heard" in str(side.error)
    assert side.at - began == pytest.approx(CONTROL_TIMING.silence)


async def test_any_byte_counts_as_life(autojump_clock: trio.testing.MockClock) -> None:
    ends = in_session()
    stream, peer = trio.testing.memory_stream_pair()
    side = Side(Link(stream, ends[Role.AGENT], timing=CONTROL_TIMING))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.run)
        for _ in range(4):  # a frame announced, and its bytes one by one
            await trio.sleep(40)
            await peer.send_all(b"\0" if _ < 3 else b"\x20")
        await trio.sleep(40)
        assert side.error is None
        await side.ended.wait()
    assert "nothing was heard" in str(side.error)


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    ends = in_session(bulk=True)
    ours, theirs = trio.testing.lockstep_stream_pair()
    side = Side(Link(ours, ends[Role.PRIMARY], timing=Timing(ping=15, silence=10_000, stall=60)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.run)
        await side.link.send(BlockResponseBin(task="t", size=9, blocks=()), b"x" * 9)
        await side.ended.wait()
    assert "took nothing for 60 seconds" in str(side.error)
    await theirs.aclose()


async def test_a_receiver_that_is_busy_is_not_taken_for_a_dead_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While the task's inbox is full we do not read, so silence says nothing about the peer."""
    ends = in_session(bulk=True)
    here, there = trio.testing.memory_stream_pair()
    link = Link(here, ends[Role.AGENT], timing=Timing(ping=15, silence=45, stall=600))
    primary = Side(Link(there, ends[Role.PRIMARY], timing=BULK_TIMING))
    done = trio.Event()

    async def slow(received: Received) -> None:
        await trio.sleep(500)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(primary.run)

        async def run() -> None:
            with pytest.raises(LinkLost):
                await link.run(slow)

        nursery.start_soon(run)
        await primary.link.send(BlockResponseBin(task="t", size=3, blocks=()), b"abc")
        await done.wait()
        await trio.sleep(100)
        assert primary.error is None
        await link.send(SyncStart(task="t"))
        link.end()


async def test_pings_are_answered_while_bulk_data_flows(autojump_clock: trio.testing.MockClock) -> None:
    async with linked(bulk=True) as (agent, primary):

        async def pour() -> None:
            for number in range(200):
                await primary.link.send(
                    BlockResponseBin(task="t", size=1000, blocks=((0, number, 1),)), b"x" * 1000
                )
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
        await trio.testing.wait_all_tasks_blocked()
        assert len(agent.received) == 200
        assert (agent.error, primary.error) == (None, None)


async def test_a_cancelled_sender_leaves_no_half_frame() -> None:
    async with linked(bulk=True) as (agent, primary):
        for number in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await primary.link.send(BlockResponseBin(task="t", size=5000, blocks=()), b"y" * 5000)
            await primary.link.send(BlockResponseBin(task=f"{number}", size=5, blocks=()), b"z" * 5)
        while len(agent.received) < 50:
            await trio.testing.wait_all_tasks_blocked()
        whole = [m.task for m in agent.received if isinstance(m, BlockResponseBin) and m.task != "t"]
        assert whole == [str(number) for number in range(50)]
        assert agent.error is None


@pytest.mark.parametrize("cut", range(1, 30))
async def test_a_cut_at_any_byte_of_a_message(cut: int) -> None:
    ends = in_session()
    ours, theirs = trio.testing.memory_stream_pair()
    side = Side(Link(ours, ends[Role.PRIMARY], timing=CONTROL_TIMING))
    data = b"".join(map(bytes, ends[Role.AGENT].send(TaskReport(task="t", state="SUCCESS"))))
    await theirs.send_all(data[:cut])
    await theirs.send_eof()
    await side.run()
    assert isinstance(side.error, RemoteProtocolError)
    assert side.received == []


async def test_a_clean_end() -> None:
    async with linked() as (agent, primary):
        agent.link.end()
        await primary.ended.wait()
        assert str(primary.error) == "the peer closed the connection"
        with pytest.raises(LinkLost):
            await agent.link.send(TaskReport(task="t", state="SUCCESS"))
        assert not primary.link.offer(Cancel(task="t"))


async def test_the_first_reason_given_is_the_one_that_counts() -> None:
    async with linked() as (agent, _):
        agent.link.end(LinkLost("revoked"))
        agent.link.end(LinkLost("something later"))
        await agent.ended.wait()
        assert str(agent.error) == "revoked"


async def test_what_may_not_be_said_is_refused_at_the_caller() -> None:
    async with linked() as (agent, primary):
        with pytest.raises(LocalProtocolError):
            await agent.link.send(Cancel(task="t"))
        await agent.link.send(TaskReport(task="t", state="SUCCESS"))
        await primary.arrived.wait()
        assert agent.error is None


async def test_a_ping_is_answered_at_once() -> None:
    ends = in_session()
    ours, theirs = trio.testing.memory_stream_pair()
    side = Side(Link(ours, ends[Role.PRIMARY], timing=CONTROL_TIMING))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.run)
        await trio.testing.wait_all_tasks_blocked()
        for buffer in ends[Role.AGENT].send(Ping(sequence=41)):
            await theirs.send_all(buffer)
        answer: list[AnyMessage] = []
        while not answer:
            answer = [r.message for r in ends[Role.AGENT].receive_data(await theirs.receive_some())]
        assert answer == [Pong(sequence=41)]
        nursery.cancel_scope.cancel()
