"""Answers that go on: how many there may be, and that each gives its place back."""

from typing import Any

import pytest
import trio
from starlette.requests import Request

from reconciler.web.refusals import RequestRefused
from reconciler.web.streams import EventStream, Streams, Tell


async def say(tell: Tell) -> None:
    await tell(b"data: 1\n\n")


def stream(streams: Streams, key: str) -> EventStream:
    return EventStream(Request({"type": "http", "headers": []}), say, {}, streams=streams, key=key)


async def told(answer: EventStream, *, breaks: bool = False) -> bytes:
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if breaks:
            raise OSError("the client is gone")
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await trio.sleep_forever()

    await answer({"type": "http"}, receive, send)
    return b"".join(sent)


async def test_each_counts_from_when_it_is_granted_to_its_end() -> None:
    streams = Streams(most=2, of_one=1)
    first = stream(streams, "anna")
    with pytest.raises(RequestRefused) as refused:
        stream(streams, "anna")
    assert (refused.value.status, "Retry-After" in refused.value.headers) == (429, True)
    second = stream(streams, "bob")
    with pytest.raises(RequestRefused):
        stream(streams, "carl")
    with pytest.raises(OSError, match="gone"):
        await told(second, breaks=True)
    assert stream(streams, "carl")
    assert await told(first) == b"data: 1\n\n"
    assert await told(stream(streams, "anna")) == b"data: 1\n\n"
