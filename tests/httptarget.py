"""A web server on loopback that answers as a test wants, well or badly, for probes that ask it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

ENDLESS = -1
SILENT = -2
CLOSES = -3


@dataclass
class Target:
    """Answers each request with what `choose` says, else the next of `answers`, the last one for ever."""

    port: int
    answers: list[int]
    asked: list[str] = field(default_factory=list)
    """The first line of each request."""
    on_ask: Callable[[], None] = lambda: None
    choose: Callable[[], int] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/health"

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some(4096)
                if not chunk:
                    return
                head += chunk
            self.asked.append(head.split(b"\r\n")[0].decode())
            status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if self.choose is not None:
                status = self.choose()
            self.on_ask()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it has seen enough
                await self._answer(stream, status)

    async def _answer(self, stream: trio.SocketStream, status: int) -> None:
        if status == CLOSES:
            return
        if status == SILENT:
            await stream.receive_some(1)
            return
        if status == ENDLESS:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                await stream.send_all(b"x" * 65536)
        where = b"Location: http://127.0.0.1:1/login\r\n" if 300 <= status < 400 else b""
        head = b"HTTP/1.1 %d X\r\n%sContent-Length: 2\r\nConnection: close\r\n\r\nok"
        await stream.send_all(head % (status, where))


@asynccontextmanager
async def http_target(*answers: int) -> AsyncIterator[Target]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = Target(listener.socket.getsockname()[1], list(answers))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, target.serve, [listener])
        yield target
        nursery.cancel_scope.cancel()
