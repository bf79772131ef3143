"""Compression of raw frames, where both sides agreed to it: zlib at its fastest. Pure.

What does not shrink is found out from a sample and travels as it is. What arrives is never unpacked to more
than was announced, and what is announced is what was asked for.
"""

import zlib

from agent.errors import RemoteProtocolError

_LEVEL = 1
_SMALLEST = 512
"""Frames below this travel as they are: a packet is a packet."""

_SAMPLES = 4
_SAMPLE_BYTES = 4 * 1024

_WORTH = 0.9
"""Share of its size that a sample, and then the frame, has to shrink to."""


def pack(content: bytes | bytearray | memoryview) -> bytes | None:
    """The content compressed; None where that is hardly smaller, which costs next to nothing to find out."""
    size = len(content)
    if size < _SMALLEST:
        return None
    if size > 2 * _SAMPLES * _SAMPLE_BYTES:
        view = memoryview(content)
        step = (size - _SAMPLE_BYTES) // (_SAMPLES - 1)
        sample = b"".join(view[at * step : at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
        if len(zlib.compress(sample, _LEVEL)) > _WORTH * len(sample):
            return None
    packed = zlib.compress(content, _LEVEL)
    return packed if len(packed) <= _WORTH * size else None


def unpack(packed: bytes, size: int) -> bytes:
    """The `size` bytes that `packed` stands for. Raises RemoteProtocolError if it stands for anything else,
    and takes no more memory than `size` to find that out."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, size)
        # The end of the stream may be read only when there is room for one byte more.
        more = stream.decompress(stream.unconsumed_tail, 1) if not stream.eof else b""
    except zlib.error:
        raise RemoteProtocolError("a compressed frame is damaged") from None
    if len(content) != size or more or not stream.eof or stream.unused_data:
        raise RemoteProtocolError("a compressed frame does not hold what it announced")
    return content
