"""The bulletin: nobody who was slow misses that something changed."""

import trio

from reconciler.bulletin import Bulletin


async def test_who_looks_late_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    bulletin = Bulletin()
    seen = bulletin.version
    bulletin.tell()
    bulletin.tell()
    assert await bulletin.wait_newer(seen) == seen + 2
    with trio.move_on_after(5) as waiting:
        await bulletin.wait_newer(bulletin.version)
    assert waiting.cancelled_caught


async def test_everybody_is_told(autojump_clock: trio.testing.MockClock) -> None:
    bulletin = Bulletin()
    told: list[int] = []

    async def watch() -> None:
        told.append(await bulletin.wait_newer(bulletin.version))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        bulletin.tell()
    assert told == [1, 1, 1]
