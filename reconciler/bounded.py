"""Reading the answer of an HTTP server that is not trusted with our memory."""

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


async def read_at_most(answer: "httpx.Response", limit: int) -> bytes | None:
    """The content of a streamed answer; None: it is more than `limit` bytes."""
    content, size = b"", 0
    # Read to its end even if it is of no use: httpx leaves generators open that are given up in between.
    async for chunk in answer.aiter_bytes():
        size += len(chunk)
        content += chunk if size <= limit else b""
    return content if size <= limit else None


def is_tls(error: BaseException) -> bool:
    """Whether a connection failed over its certificate or its encryption."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
