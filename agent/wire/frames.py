"""Frames: a length in four bytes, big-endian, then that many bytes. Bytes in, frames out, no I/O.

Nothing is allocated because of a length that a peer announced: a frame is put together from pieces as
they arrive, and a length outside the limit is refused as soon as its four bytes are there.
"""

import struct
from collections import deque

from agent.errors import LocalProtocolError, RemoteProtocolError

HEADER = struct.Struct(">I")

UNAUTHENTICATED_LIMIT = 4 * 1024
"""Largest frame, in bytes, that is read from a peer that has not proved who it is."""

CONTROL_LIMIT = 1024 * 1024
"""Largest frame with a message, in bytes."""

DATA_LIMIT = 4 * 1024 * 1024
"""Largest raw frame, in bytes: one block of the largest size."""

_COALESCE = 4 * 1024
"""Pieces smaller than this are gathered, so that a peer that sends single bytes costs no memory of ours."""

Buffer = bytes | bytearray | memoryview


def header(size: int, limit: int) -> bytes:
    """The four bytes before a frame of `size`; LocalProtocolError unless 1 <= size <= limit."""
    if not 1 <= size <= limit:
        raise LocalProtocolError(f"a frame of {size} bytes is outside 1 to {limit}")
    return HEADER.pack(size)


class FrameReader:
    """Cuts a stream of bytes into frames, each copied at most once.

    The caller says with each `next_frame` how large the next frame may be, because that depends on
    what was said before.
    """

    def __init__(self) -> None:
        self._pieces: deque[Buffer] = deque()
        self._available = 0
        self._size: int | None = None  # of the frame whose header was read

    @property
    def buffered(self) -> int:
        """Bytes received and not yet handed out; a header that was read counts as handed out."""
        return self._available

    @property
    def in_frame(self) -> bool:
        """Whether the stream would be cut in the middle of a frame if it ended here."""
        return self._size is not None or self._available > 0

    def feed(self, data: Buffer) -> None:
        if not data:
            return
        self._available += len(data)
        if len(data) >= _COALESCE:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < DATA_LIMIT:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def next_frame(self, limit: int) -> bytes | None:
        """The next whole frame, or None while it is incomplete.

        Raises RemoteProtocolError for a length of 0 or above `limit`, before any of it is kept.
        """
        if self._size is None:
            if self._available < HEADER.size:
                return None
            (size,) = HEADER.unpack(self._take(HEADER.size))
            if not 1 <= size <= limit:
                raise RemoteProtocolError(
                    f"the peer announced a frame of {size} bytes, allowed are 1 to {limit}"
                )
            self._size = size
        if self._available < self._size:
            return None
        frame = self._take(self._size)
        self._size = None
        return frame

    def _take(self, count: int) -> bytes:
        self._available -= count
        first = self._pieces[0]
        if len(first) > count:
            # Views, so that many small frames in one piece do not copy its rest again and again.
            view = memoryview(first)
            self._pieces[0] = view[count:]
            return bytes(view[:count])
        taken: list[Buffer] = []
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                view = memoryview(piece)
                self._pieces.appendleft(view[count:])
                piece = view[:count]
            taken.append(piece)
            count -= len(piece)
        if len(taken) == 1 and isinstance(taken[0], bytes):
            return taken[0]
        return b"".join(taken)
