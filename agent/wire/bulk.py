"""The messages by which blocks are asked for, as a whole or in parts, described and sent."""

from agent.wire.base import Message

PIECES = "pieces"
"""Feature: the primary describes blocks by their pieces, and sends ranges of files."""


class DescribeBlocks(Message, frozen=True, kw_only=True, tag="describe_blocks"):
    """Agent to primary, where `pieces` was agreed on: describe these blocks, each as in `BlockRequest`."""

    task: str
    blocks: tuple[tuple[int, int], ...]


class BlockDescriptions(Message, frozen=True, kw_only=True, tag="block_descriptions"):
    """The answer, in the same order: each as (entry ordinal, block number, digests of pieces, anchors).

    Both are empty for a block that could not be read.
    """

    task: str
    blocks: tuple[tuple[int, int, bytes, bytes], ...]


class BlockRequest(Message, frozen=True, kw_only=True, tag="block_request"):
    """Agent to primary: these blocks, each as (entry ordinal, block number). Answered in any order.

    Or, where `pieces` was agreed on, these ranges, each as (entry ordinal, offset in the file, bytes).
    """

    task: str
    blocks: tuple[tuple[int, int], ...]
    ranges: tuple[tuple[int, int, int], ...] = ()


class BlockResponseBin(Message, frozen=True, kw_only=True, tag="block_response_bin"):
    """Announces one raw frame of `size` bytes: the contents of `blocks`, in order, back to back.

    Each of `blocks` is (entry ordinal, block number, bytes). A block that could not be served has
    the number of bytes -1 and takes no room in the frame. With `ranges` (entry ordinal, offset, bytes)
    the frame holds those that were asked for, and no blocks.
    """

    task: str
    size: int
    blocks: tuple[tuple[int, int, int], ...]
    ranges: tuple[tuple[int, int, int], ...] = ()
    unpacked: int = 0
    """With the feature DEFLATE: the frame is compressed (zlib) and stands for so many bytes; 0: it is not."""
