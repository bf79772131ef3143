"""Several primaries after one lease, in simulated time: never two act, and somebody soon does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.errors import LeaseHeld, LeaseLost
from reconciler.lease_keeper import Role
from tests.reconciler.simulated_lease import GRACE, TIMING, Remote, Way, in_simulated_time, lead, make, role

SECONDS = st.floats(0, 9)
FAULTS = st.sampled_from(["", "", "", "", "lost", "answer lost"])
LENGTHS = st.floats(0, 60)
CLOCKS = st.tuples(st.floats(0.98, 1.02), st.floats(0, 1e6))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), number=st.integers(2, 3))
def test_never_do_two_act(data: st.DataObject, number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever git takes, loses or says twice, however clocks run, whoever is killed and comes back."""
    directory = tmp_path_factory.mktemp("lease")
    faults = data.draw(st.lists(st.tuples(SECONDS, SECONDS, FAULTS), min_size=1, max_size=40))
    lengths = data.draw(st.lists(LENGTHS, min_size=1, max_size=10))
    clocks = data.draw(st.lists(CLOCKS, min_size=number, max_size=number))
    lives = data.draw(st.lists(st.tuples(st.integers(0, number - 1), st.floats(1, 120)), max_size=6))

    async def main() -> None:
        remote = Remote()
        scopes: dict[int, trio.CancelScope] = {}

        def cycle(items: list[Any], start: int) -> Iterator[Any]:
            at = start * 7
            while True:
                yield items[at % len(items)]
                at += 1

        async def primary(index: int, born: int) -> None:
            rate, offset = clocks[index]
            name = f"p{index}"
            keeper = make(
                remote,
                directory,
                name,
                way=Way(remote, cycle(faults, index + born)),
                clock=lambda: trio.current_time() * rate + offset,
            )
            with trio.CancelScope() as scopes[index]:
                await lead(keeper, remote, name, cycle(lengths, index))

        async with trio.open_nursery() as nursery:
            for index in range(number):
                nursery.start_soon(primary, index, 0)
            for born, (index, at) in enumerate(lives, start=1):
                await trio.sleep(at)
                scopes[index].cancel()
                await trio.sleep(GRACE + 1)
                nursery.start_soon(primary, index, born)
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
        if not lives and all(not fault and before + after < 5 for before, after, fault in faults):
            assert remote.acted, "nothing is in the way"

    in_simulated_time(main)


def test_a_machine_that_slept_stops_what_it_was_doing(tmp_path: Path) -> None:
    """Nobody's clock is set: ours went on while the one of timeouts stood still."""

    async def main() -> None:
        remote, slept = Remote(), 0.0
        way = Way(remote)
        keeper = make(remote, tmp_path, "first", way=way, clock=lambda: trio.current_time() + slept)
        await keeper.stand_by()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.keep)
            with pytest.raises(LeaseLost):
                async with keeper.acting():
                    await trio.sleep(5)
                    way.cut, slept = True, 3600.0
                    woke = trio.current_time()
                    await trio.sleep(20)
            assert trio.current_time() - woke <= TIMING.retry
            nursery.cancel_scope.cancel()

    in_simulated_time(main)


def test_the_second_takes_over_within_a_minute_of_the_firsts_death(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        first, second = make(remote, tmp_path, "first"), make(remote, tmp_path, "second")
        await first.stand_by()
        assert (role(first), role(second), first.epoch) == (Role.LEADER, Role.STANDBY, 1000)
        async with trio.open_nursery() as nursery, trio.open_nursery() as life:
            life.start_soon(first.keep)
            nursery.start_soon(second.stand_by)
            await trio.sleep(500)
            assert (role(first), role(second)) == (Role.LEADER, Role.STANDBY)
            life.cancel_scope.cancel()
            died = trio.current_time()
            with trio.fail_after(60):
                while role(second) is not Role.LEADER:
                    await second.wait_change()
            assert trio.current_time() - died <= 60
            assert second.epoch == 1001
            assert role(first) is Role.UNSURE
            with pytest.raises(LeaseLost):
                async with first.acting():
                    raise AssertionError("it must not get here")

    in_simulated_time(main)


def test_a_clean_end_hands_over_at_once_and_back_again(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        first, second = make(remote, tmp_path, "first"), make(remote, tmp_path, "second")
        await first.stand_by()
        await first.release()
        began = trio.current_time()
        await second.stand_by()
        assert trio.current_time() - began < 1
        assert second.epoch == 1001
        await second.release()
        # The next process of the same directory: no agent has seen another since.
        again = make(remote, tmp_path, "second")
        await again.stand_by()
        assert again.epoch == 1001

    in_simulated_time(main)


def test_a_successor_on_the_same_directory_does_not_wait(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        await make(remote, tmp_path, "first").stand_by()
        began = trio.current_time()
        again = make(remote, tmp_path, "first")
        await again.stand_by()
        assert trio.current_time() - began < 1
        assert again.epoch == 1000

    in_simulated_time(main)


def test_who_cannot_renew_stops_before_another_may_begin(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        way = Way(remote)
        first = make(remote, tmp_path, "first", way=way)
        second = make(remote, tmp_path, "second")
        await first.stand_by()
        ended: list[float] = []

        async def long_step() -> None:
            with pytest.raises(LeaseLost, match="could not be renewed for 35 seconds"):
                async with first.acting():
                    try:
                        await trio.sleep(3600)
                    finally:
                        ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.keep)
            nursery.start_soon(second.stand_by)
            nursery.start_soon(long_step)
            await trio.sleep(100)
            way.cut = True
            cut = trio.current_time()
            with trio.fail_after(60):
                while role(second) is not Role.LEADER:
                    await second.wait_change()
            assert ended
            assert ended[0] - cut <= TIMING.stop
            assert trio.current_time() - ended[0] >= 10
            assert role(first) is Role.UNSURE
            # Once it sees git again, it knows.
            way.cut = False
            while role(first) is not Role.STANDBY:
                await first.wait_change()
            nursery.cancel_scope.cancel()

    in_simulated_time(main)


def test_a_short_outage_breaks_nothing_off(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        way = Way(remote)
        keeper = make(remote, tmp_path, "first", way=way)
        await keeper.stand_by()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.keep)
            async with keeper.acting():
                await trio.sleep(14)
                way.cut = True
                await trio.sleep(10)
                way.cut = False
                await trio.sleep(600)
            assert role(keeper) is Role.LEADER
            nursery.cancel_scope.cancel()

    in_simulated_time(main)


def test_a_single_pass_takes_the_lease_when_it_is_to_be_had(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        one = make(remote, tmp_path, "one")
        assert not await one.claim(None)
        await one.release()
        # Nobody has acted since what it saw: its plan holds.
        assert not await one.claim(remote.oid)
        assert not await one.claim("whatever: it is ours already")
        await one.release()
        seen = remote.oid
        other = make(remote, tmp_path, "other")
        assert not await other.claim(seen)
        await other.release()
        assert await one.claim(seen)
        assert one.epoch == 1002

    in_simulated_time(main)


def test_a_single_pass_says_who_leads_and_waits_for_one_that_seems_dead(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        leader, one = make(remote, tmp_path, "leader"), make(remote, tmp_path, "one")
        await leader.stand_by()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leader.keep)
            with trio.fail_after(25), pytest.raises(LeaseHeld, match="the primary on leader acts"):
                await one.claim(remote.oid)
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            # The dead one may have acted after it was seen.
            assert await one.claim(remote.oid)

    in_simulated_time(main)


@pytest.mark.parametrize("length", [0, 3, 30])
def test_of_two_passes_at_once_the_second_waits_and_looks_anew(tmp_path: Path, length: int) -> None:
    """Both have seen the same lease, which nobody held; who comes late acts on nothing that it saw before."""

    async def main() -> None:
        remote = Remote()
        before = make(remote, tmp_path, "before")
        await before.claim(None)
        await before.release()
        seen, found = remote.oid, dict[str, bool]()

        async def make_pass(name: str) -> None:
            keeper = make(remote, tmp_path, name)
            found[name] = await keeper.claim(seen)
            async with keeper.acting():
                await trio.sleep(length)
            await keeper.release()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_pass, "one")
            nursery.start_soon(make_pass, "other")
        assert sorted(found.values()) == [False, True]

    in_simulated_time(main)


def test_a_release_after_a_renewal_that_came_through_unheard(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        way = Way(remote)
        keeper = make(remote, tmp_path, "one", way=way)
        await keeper.stand_by()
        assert remote.lease is not None
        # As by a push that was killed after the server had it.
        heard = keeper._tenure
        await keeper._renew()
        keeper._tenure = heard
        await keeper.release()
        assert remote.lease.released

    in_simulated_time(main)


def test_a_deleted_lease_is_made_anew_above_every_epoch(tmp_path: Path) -> None:
    async def main() -> None:
        remote = Remote()
        first, second = make(remote, tmp_path, "first"), make(remote, tmp_path, "second", wall=lambda: 5.0)
        await first.stand_by()
        remote.lease = None
        await first._renew()
        assert role(first) is Role.STANDBY
        await first.stand_by()
        assert first.epoch == 1001
        await second.look(remote.oid)
        remote.lease = None
        await second.stand_by()
        assert second.epoch == 1002

    in_simulated_time(main)


def test_of_claims_side_by_side_one_begins_to_keep_it(tmp_path: Path) -> None:
    async def main() -> None:
        one = make(Remote(), tmp_path, "one")
        began: list[int] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one.claim, None, lambda: began.append(one.epoch))
        assert began == [one.epoch]
        await one.release()

    in_simulated_time(main)
