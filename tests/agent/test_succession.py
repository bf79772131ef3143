"""What an agent does when its primary says that it goes away, or does not know whether it still leads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.address import Address
from agent.dial import Dial, Dialled, dial
from agent.link import LinkLost
from agent.session import SPREAD
from agent.wire.channel import Channel
from agent.wire.messages import LEADING, UNSURE, TaskReport, Work
from reconciler.sync.watch import AgentUnreachable
from tests.connected import DEADLINE, Node, Setup, make_node, make_task, running_hub, until


@dataclass
class Two:
    """Two primaries of one installation, and an agent that knows both."""

    first: Setup
    second: Setup
    node: Node
    slept: list[float]
    ran: list[str]
    """The ids of the tasks that the agent took on."""

    async def until_at(self, setup: Setup) -> None:
        assert await setup.hub.wait_connected(["web-1"], 60) == {"web-1"}
        other = self.second if setup is self.first else self.first
        await until(other, lambda: not other.hub.connected())
        report = await setup.hub.run_task("web-1", make_task("t"), None)
        assert report.state == "SUCCESS"


@asynccontextmanager
async def two_primaries(tmp_path: Path, *, epochs: tuple[int, int], dial: Dial = dial) -> AsyncIterator[Two]:
    """The agent is at the first."""
    key, node = Ed25519PrivateKey.generate(), make_node(tmp_path)
    slept: list[float] = []
    ran: list[str] = []

    async def run(task: Work, channel: Channel) -> TaskReport:
        ran.append(task.id)
        return TaskReport(task=task.id, state="SUCCESS")

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await trio.lowlevel.checkpoint()

    enrolled = [node.enrolment(paired=True)]
    async with (
        running_hub(tmp_path / "a", enrolled, key=key, epoch=epochs[0]) as first,
        running_hub(tmp_path / "b", enrolled, key=key, epoch=epochs[1]) as second,
        trio.open_nursery() as nursery,
    ):
        node.memory.remember_server(first.hub.fingerprint)
        primaries = (first.address, second.address)
        nursery.start_soon(first.agent(node, run, primaries=primaries, sleep=sleep, dial=dial).run)
        two = Two(first, second, node, slept, ran)
        await two.until_at(first)
        yield two
        nursery.cancel_scope.cancel()


async def test_who_is_told_goes_to_the_other_at_once(tmp_path: Path) -> None:
    async with two_primaries(tmp_path, epochs=(1, 2)) as two:
        with trio.fail_after(DEADLINE):
            await two.first.hub.take_leave()
        assert not two.first.hub.connected()
        await two.until_at(two.second)
        assert len(two.slept) == 1 and 0 <= two.slept[0] <= SPREAD
        # Nobody is let in any more where the leave was taken.
        with pytest.raises(OSError, match="all attempts to connect"):
            await two.first.open_raw()


async def test_an_agent_with_one_address_comes_back_to_it(tmp_path: Path) -> None:
    key, node = Ed25519PrivateKey.generate(), make_node(tmp_path)
    enrolled = [node.enrolment(paired=True)]
    async with trio.open_nursery() as nursery:
        async with running_hub(tmp_path, enrolled, key=key) as setup:
            node.memory.remember_server(setup.hub.fingerprint)
            nursery.start_soon(setup.agent(node).run)
            assert await setup.hub.wait_connected(["web-1"], 60)
            port = setup.hub.addresses[0].port
            await setup.hub.take_leave()
        async with running_hub(tmp_path, enrolled, key=key, port=port) as again:
            assert await again.hub.wait_connected(["web-1"], 60)
            nursery.cancel_scope.cancel()


async def test_the_successor_of_a_primary_that_is_unsure_is_looked_for_and_found(tmp_path: Path) -> None:
    async with two_primaries(tmp_path, epochs=(1, 2)) as two:
        two.first.hub.stand(UNSURE, "the primary cannot renew its lease")
        await two.until_at(two.second)
        assert two.slept == [0.0] and two.node.memory.epoch() == 2
        # The older one, should it come back, is refused from now on.
        two.second.hub.stand(UNSURE)
        await two.second.hub.ping("web-1")
        assert await two.first.hub.wait_connected(["web-1"], 2 * SPREAD) == set()


async def test_a_session_with_one_that_was_succeeded_takes_no_task_any_more(tmp_path: Path) -> None:
    """The newer one was met on a connection, and then could not be reached: nobody serves the agent."""
    once: list[Address] = []
    blocked: list[Address] = []
    lost = trio.Event()

    async def dial_once(address: Address, *given: Any, **named: Any) -> Dialled:
        if address in blocked:
            lost.set()
            raise LinkLost(f"{address}: cannot be reached")
        if address in once:
            blocked.append(address)  # its control connection alone comes about
        return await dial(address, *given, **named)

    async with two_primaries(tmp_path, epochs=(1, 2), dial=dial_once) as two:
        once.append(two.second.address)
        two.first.hub.stand(UNSURE)
        with trio.fail_after(DEADLINE):
            await lost.wait()
        assert two.first.hub.connected() == {"web-1"}
        with pytest.raises(AgentUnreachable, match="went away during the task"):
            await two.first.hub.run_task("web-1", make_task("late"), None)
        assert "late" not in two.ran
        once.clear()
        blocked[:] = [two.first.address]
        await two.until_at(two.second)
        assert two.ran == ["t", "t"]


@pytest.mark.parametrize("epoch", [5, 4], ids=["same-epoch", "older-epoch"])
async def test_one_that_succeeded_nobody_is_none(tmp_path: Path, epoch: int) -> None:
    """Nobody else leads: it stays where it is, and goes on doing what it is told."""
    async with two_primaries(tmp_path, epochs=(5, epoch)) as two:
        tried = Tried.at(two)
        two.first.hub.stand(UNSURE)
        await tried.times(2)
        await two.until_at(two.first)
        assert two.slept == []


async def test_a_doubt_that_is_over_ends_the_search(tmp_path: Path) -> None:
    async with two_primaries(tmp_path, epochs=(5, 5)) as two:
        tried = Tried.at(two)
        two.first.hub.stand(UNSURE)
        await tried.times(1)
        two.first.hub.stand(LEADING)
        await two.first.hub.ping("web-1")
        before = tried.number
        two.second.hub.show_epoch(6)
        assert await two.second.hub.wait_connected(["web-1"], 2 * SPREAD) == set()
        assert tried.number <= before + 1
        # Whoever comes new is told as well, and an agent that comes again.
        two.first.hub.stand(UNSURE)
        await two.until_at(two.second)


class Tried:
    """How often the second primary was asked by somebody who then did not stay."""

    def __init__(self) -> None:
        self.number = 0
        self._more = trio.Event()

    @classmethod
    def at(cls, two: Two) -> "Tried":
        tried = cls()
        reception = two.second.hub._reception
        judge = reception._accepted

        def accepted(*given: object) -> object:
            tried.number += 1
            tried._more.set()
            tried._more = trio.Event()
            return judge(*given)  # type: ignore[arg-type]

        reception._accepted = accepted  # type: ignore[method-assign,assignment]
        return tried

    async def times(self, number: int) -> None:
        with trio.fail_after(60):
            while self.number < number:
                await self._more.wait()


async def test_an_older_agent_is_told_nothing_and_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.session.PROTOCOL_VERSIONS", (2,))
    async with two_primaries(tmp_path, epochs=(1, 2)) as two:
        two.first.hub.stand(UNSURE)
        await two.until_at(two.first)
        with trio.fail_after(DEADLINE):
            await two.first.hub.take_leave()
        assert two.first.hub.connected() == {"web-1"}
