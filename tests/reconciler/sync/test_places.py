"""Places for connections: how many there are, who is next, and that none is lost."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from reconciler.sync.places import NoPlace, Places


class Guests:
    """Each holds a place until it is told to go."""

    def __init__(self, places: Places, nursery: trio.Nursery) -> None:
        self._places = places
        self._nursery = nursery
        self._leave: dict[str, trio.Event] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self.inside: list[str] = []
        self.refused: list[str] = []

    async def come(self, name: str) -> None:
        self._nursery.start_soon(self._visit, name)
        await wait_all_tasks_blocked()

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await wait_all_tasks_blocked()

    async def _visit(self, name: str) -> None:
        self._leave[name] = trio.Event()
        with trio.CancelScope() as self.scopes[name]:
            try:
                async with self._places.take():
                    self.inside.append(name)
                    await self._leave[name].wait()
                    self.inside.remove(name)
            except NoPlace:
                self.refused.append(name)


async def test_who_came_last_is_next() -> None:
    places = Places(1, waiting=2)
    async with trio.open_nursery() as nursery:
        guests = Guests(places, nursery)
        for name in ("a", "b", "c", "d"):
            await guests.come(name)
        assert (guests.inside, guests.refused) == (["a"], ["b"])
        for name in ("a", "d", "c"):
            await guests.leave(name)
        assert guests.inside == []
        assert places.taken == 0
        await guests.come("e")
        assert guests.inside == ["e"]
        await guests.leave("e")


@pytest.mark.parametrize("freed_before", [True, False])
async def test_who_gives_up_takes_no_place_along(freed_before: bool) -> None:
    """Also in the very moment in which one came free for it."""
    places = Places(1, waiting=2)
    async with trio.open_nursery() as nursery:
        guests = Guests(places, nursery)
        for name in ("a", "b", "c"):
            await guests.come(name)
        if freed_before:
            guests._leave["a"].set()
        guests.scopes["c"].cancel()
        await wait_all_tasks_blocked()
        if not freed_before:
            await guests.leave("a")
        assert guests.inside == ["b"]
        await guests.leave("b")
        assert places.taken == 0
