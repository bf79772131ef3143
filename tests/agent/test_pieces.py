"""Putting blocks together from an old file, whatever happened to it, and what an old file is asked for."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.blocks import block_count, block_length, block_size_for
from agent.pieces import (
    ANCHORS,
    MIN_PIECE,
    PIECES,
    WORTH_REFINING,
    Description,
    Guess,
    anchor_offsets,
    describe,
    piece_count,
    piece_size,
    runs,
    shifts_between,
)
from agent.refine import ROUND_BYTES, bounded, ends

KIB = 1024

edits = st.tuples(st.sampled_from(["insert", "delete", "change"]), st.floats(0, 1), st.integers(1, 20_000))


def edited(old: bytes, changes: list[tuple[str, float, int]], seed: int) -> tuple[bytes, int]:
    """The new content, and how many bytes of it are not of the old one."""
    source = random.Random(seed)
    fresh = 0
    for kind, where, size in changes:
        at = int(where * len(old))
        if kind != "delete":
            fresh += size
        put = b"" if kind == "delete" else source.randbytes(size)
        old = old[:at] + put + old[at + (0 if kind == "insert" else size) :]
    return old, fresh


def requested(old: bytes, new: bytes) -> int:
    """Puts each block together as an agent does, checks it, and counts the bytes that had to be sent."""
    view, total = memoryview(old), 0
    shifts = [0, *shifts_between(len(old), len(new))]
    for number in range(block_count(len(new))):
        length, at = block_length(len(new), number), number * block_size_for(len(new))
        block = new[at : at + length]
        if length < WORTH_REFINING:
            total += length
            continue
        guess = Guess(at, bytearray(length), describe(memoryview(block)))
        guess.fill(lambda offset, size: view[max(offset, 0) : max(offset + size, 0)], shifts)
        for offset, size in guess.ranges():
            guess.content[offset : offset + size] = block[offset : offset + size]
            total += size
        assert guess.content == block
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(WORTH_REFINING, 700 * KIB), st.lists(edits, max_size=5), st.integers(0, 99))
def test_what_was_put_together_is_the_new_content(
    size: int, changes: list[tuple[str, float, int]], seed: int
) -> None:
    old = random.Random(seed).randbytes(size)
    new, _ = edited(old, changes, seed)
    assert requested(old, new) <= len(new)


@settings(max_examples=60, deadline=None)
@given(st.integers(256 * KIB, 700 * KIB), edits, st.integers(0, 99))
def test_one_edit_costs_itself_and_a_few_pieces(size: int, change: tuple[str, float, int], seed: int) -> None:
    old = random.Random(seed).randbytes(size)
    new, fresh = edited(old, [change], seed)
    # The last block may be too small to be described at all.
    assert requested(old, new) <= fresh + 6 * MIN_PIECE + WORTH_REFINING


@given(st.integers(WORTH_REFINING, 4096 * KIB))
def test_pieces_and_anchors_lie_within_a_block(length: int) -> None:
    size, count = piece_size(length), piece_count(length)
    assert size >= MIN_PIECE
    assert (count - 1) * size < length <= count * size
    assert count <= PIECES
    offsets = anchor_offsets(length)
    assert len(offsets) == ANCHORS
    assert offsets == sorted(set(offsets))
    assert offsets[0] == 0
    assert offsets[-1] + 16 == length


@pytest.mark.parametrize("content", [bytes(200 * KIB), b"ab" * (100 * KIB)], ids=["zeros", "a-pattern"])
def test_content_that_repeats_ends_too(content: bytes) -> None:
    assert requested(content, b"!" + content) <= 3 * MIN_PIECE + WORTH_REFINING


def test_a_description_that_does_not_fit_is_known() -> None:
    good = describe(memoryview(random.Random(1).randbytes(100 * KIB)))
    assert good.fits(100 * KIB)
    assert not good.fits(200 * KIB)
    assert not Description(good.digests[:-1], good.anchors).fits(100 * KIB)
    assert not Description(good.digests, good.anchors + b"x").fits(100 * KIB)


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_exactly_the_numbers(numbers: set[int]) -> None:
    found = runs(sorted(numbers))
    assert [number for first, last in found for number in range(first, last)] == sorted(numbers)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found))


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 8))
def test_a_run_is_taken_from_its_ends(first: int, count: int, width: int) -> None:
    taken, between = ends((3, first, first + count), width)
    inner = [(3, number) for _, start, end in between for number in range(start, end)]
    assert sorted(taken + inner) == [(3, number) for number in range(first, first + count)]
    assert len(taken) <= 2 * width


@given(st.integers(1, 8), st.integers(1, 64 * 1024**3))
def test_what_is_put_together_at_once_is_bounded(width: int, size: int) -> None:
    assert 1 <= bounded(width, size) <= width
    assert 2 * bounded(width, size) * block_size_for(size) <= ROUND_BYTES
