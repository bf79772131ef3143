"""What the HTTP doubles have in common: a silent server on loopback for the length of a `with`."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class HttpDouble:
    """A double at `url`. `released` is set at its end, and by tests: whoever is held back waits for it."""

    def __init__(self, handler: type[DoubleHandler], tls: ssl.SSLContext | None = None) -> None:
        self._released = threading.Event()
        self._server = _Server(self, handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; from then on nothing listens at `url`."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, double: HttpDouble, handler: type[DoubleHandler]) -> None:
        self.double: Any = double
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is part of the tests, and nothing to print."""


class DoubleHandler(BaseHTTPRequestHandler):
    """Hands each request to `self.server.double`."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a double keeps its own log of requests."""

    def read_json(self, otherwise: Any) -> Any:
        """The body of the request; `otherwise` where it is not JSON."""
        length = int(self.headers.get("Content-Length", "0"))
        try:
            return json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            return otherwise
