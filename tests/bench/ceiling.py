"""What the machine leaves to a copy that is encrypted and verified: TLS, SHA-256, writing, nothing else.

Two processes over loopback. One reads a file in pieces, hashes each and sends it; the other receives,
hashes and writes it. Each has two threads, so that the network does not wait for the rest. No protocol, no
index, no name, no second look: whatever does more than that on this machine, and by the same libraries,
takes longer.
"""

from __future__ import annotations

import hashlib
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import contexts, tls
from tests.bench.peers import Copied

ROOT = Path(__file__).parents[2]
PIECE = 1024 * 1024
_AHEAD = 8
"""Pieces between the two threads of a process."""


class Ceiling:
    """Its processes are those of the one copy that is under way."""

    name = "TLS, SHA-256 and writing alone"

    def __init__(self, private: Path) -> None:
        tls.make_private_directory(private)
        tls.write_identity(private, "server", Ed25519PrivateKey.generate(), "ceiling")
        self._private = private
        self._running: list[subprocess.Popen[bytes]] = []

    def processes(self) -> Sequence[int]:
        return [process.pid for process in self._running]

    def copy(self, source: Path, target: Path) -> Copied:
        """Of one file; the time is from when both processes are there until the last byte was written."""
        command = [sys.executable, "-m", "tests.bench.ceiling"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            sending = [*command, "send", str(listener.fileno()), str(source), str(self._private)]
            sender = subprocess.Popen(sending, cwd=ROOT, pass_fds=[listener.fileno()])
        self._running = [sender]
        receiving = [*command, "receive", str(port), str(target)]
        receiver = subprocess.Popen(receiving, cwd=ROOT, stdout=subprocess.PIPE)
        self._running.append(receiver)
        said, _ = receiver.communicate()
        if sender.wait() or receiver.returncode:
            raise RuntimeError("the measure of the ceiling failed; its last words are above")
        self._running = []
        return Copied(float(said), bytes_moved=source.stat().st_size)


class _Line:
    """TLS over a socket, with as few system calls as large pieces allow, as ours has it."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, is_server: bool) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        self._ciphertext = memoryview(bytearray(PIECE))
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                break

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def receive(self, size: int) -> memoryview:
        data = memoryview(bytearray(size))
        done = 0
        while done < size:
            try:
                done += int(self._tls.read(size - done, data[done:]))  # into the view, gives a count
            except ssl.SSLWantReadError:
                self._fill()
        return data

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.sendall(self._outgoing.read())

    def _fill(self) -> None:
        count = self._plain.recv_into(self._ciphertext)
        if not count:
            raise EOFError("the other side has ended")
        self._incoming.write(self._ciphertext[:count])


def _send(listener_fd: int, source: Path, private: Path) -> None:
    with socket.socket(fileno=listener_fd) as listener:
        plain, _ = listener.accept()
    pieces: queue.Queue[bytes] = queue.Queue(_AHEAD)

    def read() -> None:
        with source.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                hashlib.sha256(piece).digest()
                pieces.put(piece)
        pieces.put(b"")

    with plain:
        line = _Line(plain, contexts.pairing_server_context(private), is_server=True)
        line.send(source.stat().st_size.to_bytes(8, "big"))
        line.receive(1)  # the other side is ready
        threading.Thread(target=read).start()
        while piece := pieces.get():
            line.send(piece)


def _receive(port: int, target: Path) -> float:
    """Seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is about the cost of encryption
    pieces: queue.Queue[memoryview] = queue.Queue(_AHEAD)

    def write() -> None:
        with target.open("wb", buffering=0) as file:
            while piece := pieces.get():
                hashlib.sha256(piece).digest()
                while piece:
                    piece = piece[file.write(piece) :]

    writing = threading.Thread(target=write)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        line = _Line(plain, context, is_server=False)
        left = int.from_bytes(line.receive(8), "big")
        began = time.perf_counter()
        writing.start()
        line.send(b"r")
        while left:
            piece = line.receive(min(PIECE, left))
            pieces.put(piece)
            left -= len(piece)
        pieces.put(memoryview(b""))
        writing.join()
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(_receive(int(sys.argv[2]), Path(sys.argv[3])))
