"""Compressed frames: what shrinks, what does not, and what a hostile peer may announce."""

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RemoteProtocolError
from agent.packing import pack, unpack

MIB = 1024 * 1024
TEXT = b"all happy families are alike; " * 40_000


@given(st.binary(min_size=1, max_size=64), st.integers(20, 5000))
def test_what_was_packed_is_unpacked(piece: bytes, times: int) -> None:
    content = piece * times
    packed = pack(content)
    if packed is None:
        assert len(content) < 600
    else:
        assert len(packed) < len(content)
        assert unpack(packed, len(content)) == content


def test_what_does_not_shrink_or_is_small_is_left_alone() -> None:
    assert pack(os.urandom(MIB)) is None
    assert pack(os.urandom(2000)) is None
    assert pack(b"a" * 100) is None
    assert pack(b"") is None


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (zlib.compress(TEXT), len(TEXT) - 1),
        (zlib.compress(TEXT), len(TEXT) + 1),
        (zlib.compress(TEXT)[:-1], len(TEXT)),
        (zlib.compress(TEXT) + b"x", len(TEXT)),
        (TEXT, len(TEXT)),
        (b"\0", 1),
        (zlib.compress(b""), 1),
    ],
    ids=["longer", "shorter", "cut", "followed", "plain", "damaged", "empty"],
)
def test_a_frame_stands_for_exactly_what_it_announced(packed: bytes, size: int) -> None:
    with pytest.raises(RemoteProtocolError, match="a compressed frame"):
        unpack(packed, size)


def test_a_bomb_takes_no_more_memory_than_it_announced() -> None:
    bomb = zlib.compress(bytes(256 * MIB), 9)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            unpack(bomb, 2 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
