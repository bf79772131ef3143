"""Frames: cutting a stream anywhere gives the same frames, and no announced length is believed."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import LocalProtocolError, RemoteProtocolError
from agent.wire.frames import CONTROL_LIMIT, DATA_LIMIT, FrameReader, header


def framed(bodies: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


def read_all(reader: FrameReader, limit: int = CONTROL_LIMIT) -> list[bytes]:
    found = []
    while (frame := reader.next_frame(limit)) is not None:
        found.append(frame)
    return found


@given(
    st.lists(st.binary(min_size=1, max_size=9000), max_size=8), st.lists(st.integers(1, 7000), max_size=40)
)
def test_any_cut_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    stream = framed(bodies)
    reader = FrameReader()
    found: list[bytes] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        reader.feed(stream[at : at + cut])
        found += read_all(reader)
        at += cut
    reader.feed(stream[at:])
    assert found + read_all(reader) == bodies
    assert reader.buffered == 0
    assert not reader.in_frame


def test_byte_by_byte() -> None:
    bodies = [b"a", b"bc" * 4000, b"d" * 70_000]
    reader = FrameReader()
    found: list[bytes] = []
    for value in framed(bodies):
        reader.feed(bytes([value]))
        found += read_all(reader)
    assert found == bodies


def test_single_bytes_take_no_more_memory_than_they_are() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">I", CONTROL_LIMIT))
    reader.next_frame(CONTROL_LIMIT)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            reader.feed(b"x")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300_000


@pytest.mark.parametrize("size", [0, CONTROL_LIMIT + 1, 2**31, 2**32 - 1])
def test_a_length_outside_the_limit_is_refused_before_anything_is_kept(size: int) -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">I", size))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=str(size)):
            reader.next_frame(CONTROL_LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_the_largest_frame_is_accepted() -> None:
    reader = FrameReader()
    body = b"y" * DATA_LIMIT
    reader.feed(struct.pack(">I", DATA_LIMIT))
    assert reader.next_frame(DATA_LIMIT) is None
    assert reader.in_frame
    reader.feed(body)
    assert reader.next_frame(DATA_LIMIT) == body


@pytest.mark.parametrize("size", [0, -1, 11])
def test_we_do_not_announce_what_the_peer_must_refuse(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        header(size, 10)
