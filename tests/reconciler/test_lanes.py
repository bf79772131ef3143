"""Places for steps: a limit that holds for work, and that hanging steps do not use up."""

from collections.abc import Mapping
from functools import partial

import pytest
import trio
import trio.testing

from reconciler.lanes import FIRST, SLOW_PLACES, Lane, Place

HANGS = 1800.0


class World:
    """Steps that each take as long as told; when each ended, and how many ran at once at most."""

    def __init__(self, places: int) -> None:
        self.lane = Lane(places)
        self.ended: dict[str, float] = {}
        self.running = 0
        self.most = 0

    async def step(self, name: str, seconds: float, kind: str = "deploy", *, last: bool = False) -> None:
        async with self.lane.place(kind, last=last):
            self.running += 1
            self.most = max(self.most, self.running)
            await trio.sleep(seconds)
            self.running -= 1
            self.ended[name] = trio.current_time()

    async def run(self, steps: Mapping[str, float]) -> float:
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name, seconds in steps.items():
                nursery.start_soon(self.step, name, seconds)
        return trio.current_time() - begin


@pytest.mark.parametrize("seconds", [0.001, 1.0, 30.0, 600.0])
async def test_the_limit_is_one_for_steps_of_the_same_length(
    seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(4)
    await world.run({f"known-{number}": seconds for number in range(20)})
    world.most = 0
    assert await world.run({str(number): seconds for number in range(40)}) == pytest.approx(10 * seconds)
    assert world.most == 4


async def test_steps_that_all_take_long_stay_few_from_the_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(8)
    await world.run({str(number): 600.0 for number in range(100)})
    assert world.most <= 8 + 7  # it guesses at 5, 10, 20, ... seconds until the first has ended


async def test_nearly_twice_as_long_as_usual_is_not_hanging(autojump_clock: trio.testing.MockClock) -> None:
    world = World(2)
    await world.run({str(number): 1.0 + number % 3 * 0.45 for number in range(60)})
    assert world.most == 2


@pytest.mark.parametrize("seconds", [0.02, 0.1, 20.0])
async def test_hanging_targets_slow_the_others_by_a_tenth_at_most(
    seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    """The 95th percentile of the time at which the others are done, with 5 % hanging and with none."""
    p95 = {}
    for hanging in (0, 50):
        world = World(8)
        begin = trio.current_time()
        lengths = {str(n): HANGS if hanging and n % 20 == 7 else seconds for n in range(1000)}
        await world.run(lengths)
        others = sorted(world.ended[name] - begin for name, length in lengths.items() if length == seconds)
        p95[hanging] = others[len(others) * 95 // 100]
    assert p95[50] <= p95[0] * 1.1


async def test_a_lane_full_of_hanging_steps_lets_one_pass_and_learns_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(4)
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(world.step, f"hangs-{number}", HANGS)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            nursery.start_soon(world.step, f"well-{number}", 0.1)
    assert max(at for name, at in world.ended.items() if name.startswith("well")) < FIRST + 5


async def test_the_slow_lane_has_a_bound(autojump_clock: trio.testing.MockClock) -> None:
    world = World(2)
    await world.run({str(number): 0.1 for number in range(20)})
    await world.run({str(number): HANGS for number in range(60)})
    assert world.most == 2 + 2 * SLOW_PLACES


async def test_a_kind_is_compared_with_itself(autojump_clock: trio.testing.MockClock) -> None:
    """Steps that only record something do not make a deploy look as if it hung."""
    world = World(2)
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(world.step, f"record-{number}", 0.0, "adopt")
    world.most = 0
    await world.run({str(number): 4.0 for number in range(10)})
    assert world.most == 2


async def test_those_that_are_to_go_last_do(autojump_clock: trio.testing.MockClock) -> None:
    world = World(1)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(partial(world.step, str(number), 1.0, last=number % 2 == 0))
    assert {int(name) % 2 for name in list(world.ended)[:5]} == {1}


async def test_who_gives_up_waiting_takes_no_place(autojump_clock: trio.testing.MockClock) -> None:
    world = World(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.step, "first", 3.0)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await world.step("impatient", 1.0)
        await world.step("second", 1.0)
    assert world.ended == {"first": pytest.approx(3.0), "second": pytest.approx(4.0)}


async def test_a_step_that_is_cancelled_gives_its_place_back(autojump_clock: trio.testing.MockClock) -> None:
    world = World(1)
    with trio.move_on_after(1):
        await world.step("cut off", 9.0)
    with trio.fail_after(2):
        await world.step("next", 1.0)
    assert list(world.ended) == ["next"]


async def test_a_place_that_is_given_back_goes_to_who_waits(autojump_clock: trio.testing.MockClock) -> None:
    limit = trio.CapacityLimiter(1)
    order: list[str] = []

    async def work(name: str, pauses: int) -> None:
        place = Place(lambda: limit)
        await place.take()
        try:
            for _ in range(pauses):
                assert limit.borrowed_tokens == 1
                await place.give_back()
                await trio.sleep(10)
                await place.take()
            await trio.sleep(1)
            order.append(name)
        finally:
            await place.give_back()

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(work, f"bad-{number}", 5)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(4):
            nursery.start_soon(work, f"good-{number}", 0)
    assert [name.partition("-")[0] for name in order] == ["good"] * 4 + ["bad"] * 3
    assert limit.borrowed_tokens == 0
