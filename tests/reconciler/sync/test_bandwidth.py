"""Bandwidths: reached over a long time, exceeded over none, and shared by what runs at once."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.blocks import FRAME_TARGET, MIN_BLOCK
from reconciler.sync.bandwidth import FREELY, HELD_SECONDS, Bucket, Throttle, Throttles
from reconciler.sync.serving import TreeSource
from tests.agent.inthread import without_threads
from tests.agent.syncing import Host, Tree, read_tree, synchronise, write_tree

MIB = 1024 * 1024
Sent = list[tuple[float, int]]


async def send(throttle: Throttle, total: int, piece: int, sent: Sent, work: float = 0.0) -> None:
    """A sender that needs `work` seconds of its own for each piece."""
    for _ in range(total // piece):
        await throttle.take(piece)
        sent.append((trio.current_time(), piece))
        await trio.sleep(work)


def worst_excess(sent: Sent, rate: float) -> float:
    """The most that passed in any time beyond what `rate` gives in it."""
    worst = 0.0
    for first, (began, _) in enumerate(sent):
        passed = 0
        for at, size in sent[first:]:
            passed += size
            worst = max(worst, passed - (at - began) * rate)
    return worst


@pytest.mark.parametrize("piece", [MIN_BLOCK, MIB, 4 * MIB], ids=["small", "frame", "block"])
@pytest.mark.parametrize("senders", [1, 3])
async def test_a_rate_is_reached_and_never_exceeded(
    autojump_clock: MockClock, piece: int, senders: int
) -> None:
    rate = 10 * MIB
    throttle = Throttle((Bucket(rate),))
    sent: Sent = []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(senders):
            nursery.start_soon(send, throttle, 120 * MIB, piece, sent, 0.01 * number)
    seconds = trio.current_time() - began
    assert 120 * MIB * senders / seconds == pytest.approx(rate, rel=0.03)
    assert worst_excess(sent, rate) <= HELD_SECONDS * rate + piece


async def test_a_pause_is_made_up_for_by_no_more_than_a_bucket(autojump_clock: MockClock) -> None:
    rate = MIB
    throttle = Throttle((Bucket(rate),))
    sent: Sent = []
    await send(throttle, 4 * MIB, MIN_BLOCK, sent)
    await trio.sleep(1000)
    await send(throttle, 4 * MIB, MIN_BLOCK, sent)
    assert worst_excess(sent, rate) <= HELD_SECONDS * rate + MIN_BLOCK


async def test_the_smaller_of_two_limits_holds_and_tasks_share_them(autojump_clock: MockClock) -> None:
    throttles = Throttles()
    slow = throttles.of("site", "web-1", project_rate=2 * MIB, node_rate=8 * MIB)
    again = throttles.of("site", "web-1", project_rate=2 * MIB, node_rate=8 * MIB)
    other = throttles.of("shop", "web-1", project_rate=None, node_rate=8 * MIB)
    elsewhere = throttles.of("site", "web-2", project_rate=2 * MIB, node_rate=None)
    times: dict[str, float] = {}

    async def run(name: str, throttle: Throttle, size: int) -> None:
        await send(throttle, size, MIN_BLOCK, [])
        times[name] = trio.current_time() - began

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name, throttle, size in (
            ("slow", slow, 20 * MIB),
            ("again", again, 20 * MIB),
            ("other", other, 120 * MIB),
            ("elsewhere", elsewhere, 20 * MIB),
        ):
            nursery.start_soon(run, name, throttle, size)
    # 2 MiB/s for both of the project, which leaves 6 of the node's 8 to the other one.
    assert times == {
        "slow": pytest.approx(20, rel=0.03),
        "again": pytest.approx(20, rel=0.03),
        "other": pytest.approx(20, rel=0.03),
        "elsewhere": pytest.approx(10, rel=0.03),
    }


async def test_a_new_rate_holds_for_what_is_under_way(autojump_clock: MockClock) -> None:
    throttles = Throttles()
    throttle = throttles.of("site", "web-1", project_rate=MIB, node_rate=None)
    sent: Sent = []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, throttle, 110 * MIB, MIB, sent)
        await trio.sleep(10)
        throttles.of("site", "web-1", project_rate=10 * MIB, node_rate=None)
    assert trio.current_time() - began == pytest.approx(20, rel=0.1)


async def test_what_is_cancelled_gives_back_what_it_did_not_send(autojump_clock: MockClock) -> None:
    throttle = Throttle((Bucket(MIB),))
    with trio.move_on_after(1):
        await throttle.take(100 * MIB)
    began = trio.current_time()
    await throttle.take(MIB)
    assert trio.current_time() - began <= 1


async def test_frames_are_small_where_the_rate_is(autojump_clock: MockClock) -> None:
    assert FREELY.frame_bytes == FRAME_TARGET
    assert Throttle((Bucket(1000 * MIB),)).frame_bytes == FRAME_TARGET
    assert Throttle((Bucket(1000 * MIB), Bucket(4 * MIB))).frame_bytes == 4 * MIB / 8
    assert Throttle((Bucket(16 * 1024),)).frame_bytes == MIN_BLOCK
    assert FREELY.patience == 0
    assert Throttle((Bucket(MIB),)).patience == 32


async def copied(where: Path, limits: Mapping[str, Throttle], tree: Tree) -> dict[str, float]:
    """The seconds in which each of several hosts, at once, gets a tree within its limits."""
    source = await TreeSource.build(write_tree(where / "source", tree))
    seconds: dict[str, float] = {}
    began = trio.current_time()

    async def copy(name: str, throttle: Throttle) -> None:
        host = Host(where / name)
        outcome = await synchronise(source.within(throttle), host)
        seconds[name] = trio.current_time() - began
        assert outcome.state == "SUCCESS"
        assert outcome.from_primary.payload_bytes == source.bytes
        assert read_tree(host.target) == read_tree(source.directory)

    async with trio.open_nursery() as nursery:
        for name, throttle in limits.items():
            nursery.start_soon(copy, name, throttle)
    return seconds


SMALL: Tree = {f"{number:03}": os.urandom(20_000) for number in range(420)}
LARGE: Tree = {"large": os.urandom(8 * MIB)}


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["small files", "large file"])
async def test_a_sync_reaches_its_bandwidth_and_keeps_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, tree: Tree
) -> None:
    """All but what waits for the limit takes no time here."""
    without_threads(monkeypatch)
    seconds = await copied(tmp_path, {"host": Throttle((Bucket(MIB),))}, tree)
    assert seconds == {"host": pytest.approx(8, rel=0.03)}


async def test_syncs_at_once_reach_the_limits_of_projects_and_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    without_threads(monkeypatch)
    throttles = Throttles()

    def within(project: str, node: str, *, most: int | None, of_node: int | None) -> Throttle:
        return throttles.of(project, node, project_rate=most, node_rate=of_node)

    limits = {
        # One node with two projects, one of them limited to a quarter of what the node may have.
        "slow": within("site", "web-1", most=MIB // 2, of_node=2 * MIB),
        "fast": within("shop", "web-1", most=None, of_node=2 * MIB),
        # Two targets of one project on one node share its limit, and have nothing to do with the first node.
        "one": within("site", "web-2", most=MIB // 2, of_node=None),
        "other": within("site", "web-2", most=MIB // 2, of_node=None),
        "free": FREELY,
    }
    seconds = await copied(tmp_path, limits, LARGE)
    assert seconds == {
        "slow": pytest.approx(16, rel=0.03),
        "fast": pytest.approx(8 / 1.5, rel=0.03),
        "one": pytest.approx(32, rel=0.03),
        "other": pytest.approx(32, rel=0.03),
        "free": pytest.approx(0, abs=0.2),
    }
