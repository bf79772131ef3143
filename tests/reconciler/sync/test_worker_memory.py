"""What a worker keeps of frames while it sends them, and that it gives it back."""

import os
import weakref

import pytest
import trio
import trio.testing

from reconciler.sync import worker_memory
from reconciler.sync.shared_memory import Place, place_of, shared_copy
from reconciler.sync.worker_memory import REST, BulkMemory

MIB = 1024 * 1024


def shared(content: bytes) -> tuple[memoryview, Place]:
    buffer = shared_copy(content)
    assert isinstance(buffer, memoryview)
    place = place_of(buffer)
    assert place is not None
    return buffer, place


async def test_a_frame_is_mapped_once_and_given_back_after_a_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    content = os.urandom(2 * MIB)
    _buffer, place = shared(content)
    async with trio.open_nursery() as nursery:
        memory = BulkMemory()
        nursery.start_soon(memory.run)
        for _ in range(2):
            views = [memory.view(place.fd, MIB, 100), memory.view(place.fd, 7, MIB)]
            assert views == [content[MIB : MIB + 100], content[7 : MIB + 7]]
            assert views[0].obj is views[1].obj
            kept = weakref.ref(views[0].obj)
            del views
            await trio.sleep(REST / 2)
            assert kept() is not None
            await trio.sleep(2 * REST)
            assert kept() is None
        nursery.cancel_scope.cancel()


def test_no_more_is_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_memory, "MAPPED", 2 * MIB)
    memory = BulkMemory()
    frames = [shared(os.urandom(MIB)) for _ in range(3)]

    def mapped(number: int) -> object:
        return memory.view(frames[number][1].fd, 0, MIB).obj

    first, second = mapped(0), mapped(1)
    assert mapped(0) is first
    mapped(2)
    assert mapped(0) is first
    assert mapped(1) is not second


def test_another_frame_with_the_same_descriptor_is_another() -> None:
    memory = BulkMemory()
    for content in (b"a" * MIB, b"b" * MIB):
        buffer, place = shared(content)
        assert memory.view(place.fd, 0, MIB) == content
        del buffer
