"""Reading the body of a request: never more than it may have, nor than all may have together."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from starlette.requests import ClientDisconnect, Request

from reconciler.web.refusals import RequestRefused

MAX_BODY: Final = 25 * 1024 * 1024
"""Bytes of one body: GitHub sends no larger ones."""

MAX_TOGETHER: Final = 64 * 1024 * 1024
"""Bytes of all bodies that are in memory."""


class BodyRefused(RequestRefused):
    """The body of a request that is not read to its end."""

    reason = "BodyRefused"


class Bodies:
    """All bodies that are in memory at a time."""

    def __init__(self, *, most: int = MAX_BODY, together: int = MAX_TOGETHER) -> None:
        self._most = most
        self._together = together
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, which counts until the block ends. Raises BodyRefused."""
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            # What is small here might be large once it is unpacked.
            raise BodyRefused(415, "a body is taken as it is, without a content encoding")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most:
            raise self._too_large()
        body = bytearray()
        try:
            await self._fill(body, request)
            yield bytes(body)
        finally:
            self._held -= len(body)

    async def _fill(self, body: bytearray, request: Request) -> None:
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > self._most:
                        raise self._too_large()
                    if self._held > self._together:
                        raise BodyRefused(503, "too much at once; send it again in a moment")
        except ClientDisconnect:
            raise BodyRefused(400, "the body ended early") from None

    def _too_large(self) -> BodyRefused:
        return BodyRefused(413, f"a body may have {self._most} bytes")
