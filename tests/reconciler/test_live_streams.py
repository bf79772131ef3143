"""Following a primary's stream over whatever becomes of it: nothing is lost, nothing comes twice."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent.backoff import Backoff
from reconciler.live import SOCKET_NAME, PrimaryRefused
from reconciler.live_streams import Follower
from reconciler.sent_events import MAX_EVENT, SentEvent
from reconciler.settings import Settings, load_settings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BUSY = b'HTTP/1.1 503 Busy\r\nContent-Length: 39\r\n\r\n{"success": false, "message": "standby"}'
DENIED = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}"
OTHER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
END = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def event(id: int) -> bytes:
    return b"id: %d\nevent: failed\ndata: {}\n\n" % id


@asynccontextmanager
async def answering(state: Path, answers: Sequence[bytes]) -> AsyncIterator[list[str]]:
    """A socket at which each connection gets the next answer and is closed; what was seen of each there."""
    seen: list[str] = []
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(str(state / SOCKET_NAME))
        listening.listen()

        async def serve() -> None:
            for answer in answers:
                connection, _ = await listening.accept()
                async with trio.SocketStream(connection) as stream:
                    asked = b""
                    while b"\r\n\r\n" not in asked:
                        asked += await stream.receive_some()
                    lines = asked.decode().lower().split("\r\n")
                    ids = [line.partition(": ")[2] for line in lines if line.startswith("last-event-id")]
                    seen.append(ids[0] if ids else "")
                    await stream.send_all(answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield seen
            nursery.cancel_scope.cancel()


def settings_at(state: Path) -> Settings:
    return load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(state)}, root=False)


def follower(state: Path, take: Callable[[SentEvent], bool], said: list[str]) -> Follower:
    return Follower(
        settings_at(state), "/api/events", take, said.append, after="7", pace=Backoff(first=0, longest=0)
    )


async def test_each_event_is_taken_once_over_all_interruptions(tmp_path: Path) -> None:
    taken: list[str] = []
    said: list[str] = []
    answers = [
        HEAD + chunk(b"retry: 2000\n\n" + event(8)) + chunk(event(9)[:12]),  # cut off in an event
        b"",  # closed at once
        BUSY,
        OTHER,  # a proxy in its place
        HEAD + chunk(b": still here\n\n") + chunk(event(9)) + chunk(event(10)) + END,  # its time is over
        HEAD + chunk(b"data: " + b"x" * MAX_EVENT + b"x"),
        HEAD + chunk(event(11) + event(12)),
    ]

    def take(sent: SentEvent) -> bool:
        taken.append(sent.id)
        return sent.id == "11"

    async with answering(tmp_path, answers) as seen:
        await follower(tmp_path, take, said).run()
    assert taken == ["8", "9", "10", "11"]
    assert seen == ["7", "8", "8", "8", "8", "10", "10"]
    # One word at the beginning of an outage and one at its end, however often it was tried.
    assert [line.rpartition("; ")[2] for line in said] == [
        *("trying again", "the primary is there again", "trying again", "the primary is there again"),
    ]


async def test_what_does_not_pass_ends_it(tmp_path: Path) -> None:
    said: list[str] = []
    async with answering(tmp_path, [HEAD + chunk(event(8)) + END, DENIED]) as seen:
        with pytest.raises(PrimaryRefused) as raised:
            await follower(tmp_path, lambda _: False, said).run()
    assert (raised.value.status, seen, said) == (401, ["7", "8"], [])
