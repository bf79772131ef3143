"""Block arithmetic: how a file is cut, and how wanted blocks are packed into requests. Pure.

Adaptive fixed blocks, as Syncthing's: 128 KiB, doubled until a file has at most 256 of them, at most
4 MiB. The block size is a function of the file's size alone, so that both sides agree without asking.
"""

import hashlib
from functools import lru_cache

from agent.wire.messages import DIGEST_SIZE, Entry

KIB = 1024
MIN_BLOCK = 128 * KIB
MAX_BLOCK = 4 * KIB * KIB
MAX_BLOCKS = 256
"""Blocks that a file has at most, until `MAX_BLOCK` stops the doubling."""

FRAME_TARGET = KIB * KIB
"""Blocks are packed into raw frames of about this size; one larger block travels alone."""

SMALL_BLOCKS = FRAME_TARGET // MIN_BLOCK
"""A frame of more blocks is one of small files, which a single thread writes; see `scan.WORKERS`."""

WINDOW = 32 * KIB * KIB
"""Bytes that may be asked for and not yet written: twice the bandwidth times delay of a fast link."""

MAX_REQUEST = 4096
"""Blocks that one request may name; its message stays far below a control frame."""

MILESTONE_BLOCKS = 64
MILESTONE_ENTRIES = 1024
"""How often requests begin anew; see `is_milestone`."""


def block_size_for(size: int) -> int:
    """The block size of a file of `size` bytes."""
    block_size = MIN_BLOCK
    while block_size < MAX_BLOCK and size > block_size * MAX_BLOCKS:
        block_size *= 2
    return block_size


def block_count(size: int) -> int:
    """How many blocks a file of `size` bytes has; an empty file has none."""
    return -(-size // block_size_for(size))


def block_length(size: int, number: int) -> int:
    """Bytes of block `number` of a file of `size` bytes; only the last block may be short."""
    block_size = block_size_for(size)
    return min(block_size, size - number * block_size)


def is_milestone(ordinal: int, number: int) -> bool:
    """Whether a request ends before this block in any case.

    Agents that want different blocks at first cut their requests at different places. From here on those
    that want the same ask for the same again. It comes rarely enough to leave frames full.
    """
    return number % MILESTONE_BLOCKS == 0 if number else ordinal % MILESTONE_ENTRIES == 0


def block_digest(blocks: bytes, number: int) -> bytes:
    """The digest of block `number` in the concatenation `blocks`."""
    return blocks[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]


@lru_cache(maxsize=64)
def zero_digest(length: int) -> bytes:
    """The digest of a block of `length` zeros, at most `MAX_BLOCK`."""
    return hashlib.sha256(bytes(length)).digest()


def zero_blocks(entry: Entry) -> list[int]:
    """The numbers of the blocks of a file of several that hold nothing but zeros, as its digests show.

    A short last block counts where the one before it is such a block: zeros rarely come alone, and its
    digest would have to be made for each length.
    """
    count = block_count(entry.size)
    zero = zero_digest(block_size_for(entry.size))
    if count < 2 or zero not in entry.blocks:
        return []
    numbers = [number for number in range(count) if block_digest(entry.blocks, number) == zero]
    if (
        numbers
        and numbers[-1] == count - 2
        and block_digest(entry.blocks, count - 1) == zero_digest(block_length(entry.size, count - 1))
    ):
        numbers.append(count - 1)
    return numbers


def zero_bytes(entry: Entry) -> int:
    """How much of a file is left out as holes."""
    return sum(block_length(entry.size, number) for number in zero_blocks(entry))
