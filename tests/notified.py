"""A service that notifications are posted to, as `json://` of apprise: real HTTP on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.world import PATIENCE


@dataclass(frozen=True)
class Post:
    """What arrived."""

    path: str
    title: str
    body: str
    type: str

    @property
    def told(self) -> list[str]:
        """Its lines, without the last one, which says where it comes from."""
        return self.body.splitlines()[:-1]

    @property
    def key(self) -> str:
        return self.body.rpartition(" message ")[2]


@dataclass
class Receiver:
    """Answers `status` to each post; those that it took are in `taken`, all of them in `seen`."""

    status: int = 200
    garbled: bool = False
    """Whether its headers have a line that is none."""
    taken: list[Post] = field(default_factory=list)
    seen: list[Post] = field(default_factory=list)

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver._arrived(self.path, json.loads(self.rfile.read(length)))
                if not receiver._answers.wait(PATIENCE):
                    return
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                with suppress(BrokenPipeError, ConnectionResetError):
                    if receiver.garbled:
                        self.flush_headers()
                        self.wfile.write(b"no header\r\n")
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._news = threading.Condition()
        self._answers = threading.Event()
        self._answers.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def not_answering(self) -> Iterator[None]:
        """Takes posts, and leaves their senders waiting."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def address(self, path: str = "") -> str:
        return f"json://127.0.0.1:{self._server.server_port}/{path}"

    def wait_seen(self, count: int) -> list[Post]:
        """Blocks until so many posts have come, taken or not."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.seen) >= count, PATIENCE), self.seen
            return list(self.seen)

    def wait_taken(self, count: int) -> list[Post]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.taken) >= count, PATIENCE), self.seen
            return list(self.taken)

    def _arrived(self, path: str, said: dict[str, str]) -> None:
        post = Post(path, said["title"], said["message"], said["type"])
        with self._news:
            self.seen.append(post)
            if self.status == 200:
                self.taken.append(post)
            self._news.notify_all()
