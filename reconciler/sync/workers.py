"""Worker processes, where agents are many: each is the TLS end of connections that the primary judges.

A worker that ends takes its connections with it, and another one is started; meanwhile, and where none can be
started, the primary serves by itself.
"""

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from agent.backoff import Backoff
from reconciler.sync import worker_wire as wire
from reconciler.sync.handed import HandedStream
from reconciler.sync.shared_memory import file_of

READY_DEADLINE: Final = 5.0
"""Seconds for which a primary that starts lets agents wait for the workers."""

PING: Final = 15.0
PATIENCE: Final = 30.0
"""Seconds between pings, and for which a worker may be silent. It does nothing that takes long."""

END_DEADLINE: Final = 2.0
"""Seconds that a worker has to end by itself."""

STEADY: Final = 60.0
"""Seconds after which a worker that ends is started again without the pause of earlier failures."""

_MOST_ERRORS: Final = 4096
_ENVIRONMENT: Final = {"PATH": os.defpath, "LANG": "C.UTF-8"}

_log = logging.getLogger("trueup.sync")

Wanted = Callable[[int], int]
"""How many workers so many nodes ask for."""


class Workers:
    """Those of one hub; `start_soon` is its nursery's. They read the server's certificate in `tls_dir`."""

    def __init__(
        self, tls_dir: Path, wanted: Wanted, start_soon: Callable[[Callable[[], Awaitable[None]]], None]
    ) -> None:
        self._tls_dir = tls_dir
        self._wanted = wanted
        self._start_soon = start_soon
        self._slots = 0
        self._starting = 0
        """Slots of which it is not known yet whether a worker will be there."""
        self._begun: list[_Worker] = []
        self._anchors: list[bytes] = []
        self._change = trio.Event()

    @property
    def up(self) -> int:
        """Workers that take connections."""
        return sum(worker.ready for worker in self._begun)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._begun)

    async def begin(self, nodes: int) -> None:
        """Start those that a primary which starts needs, and wait for them, but not for long."""
        self.want(nodes)
        with trio.move_on_after(READY_DEADLINE):
            while self._starting:
                await self.wait_change()

    async def wait_change(self) -> None:
        """Until a worker is ready or has ended."""
        await self._change.wait()

    def want(self, nodes: int) -> None:
        """There are so many nodes now. What was started once stays."""
        while self._slots < self._wanted(nodes):
            self._slots += 1
            self._starting += 1
            self._start_soon(self._keep)

    def show(self, anchors: Sequence[bytes]) -> None:
        """Let workers accept exactly these certificates (DER) on all later connections, and read the server's
        own again."""
        self._anchors = list(anchors)
        for worker in self._begun:
            worker.show(self._anchors)

    def hand_over(self, transport: trio.SocketStream) -> HandedStream | None:
        """Give a connection on which TLS comes next to the worker that has fewest; None: to none."""
        # Each takes three descriptors then, instead of one; the lowest that is free is given out.
        if transport.socket.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
            return None
        for worker in sorted(self._begun, key=lambda worker: worker.connections):
            if worker.ready and (stream := worker.take(transport)) is not None:
                return stream
        return None

    async def _keep(self) -> None:
        """One worker, for ever."""
        backoff = Backoff(longest=60.0)
        settled = False

        def changed() -> None:
            nonlocal settled
            self._starting -= not settled
            settled = True
            self._change.set()
            self._change = trio.Event()

        while True:
            began = trio.current_time()
            why = await self._run(changed)
            if trio.current_time() - began >= STEADY:
                backoff.reset()
            pause = backoff.next()
            _log.error("%s; its agents connect again, and it is started again in %.1f s", why, pause)
            await trio.sleep(pause)

    async def _run(self, changed: Callable[[], None]) -> str:
        """One process to its end; gives what became of it."""
        try:
            worker = await _Worker.start(self._tls_dir)
        except OSError as error:
            changed()
            return f"a worker process for agents cannot be started: {error.strerror or error}"
        self._begun.append(worker)
        try:
            worker.show(self._anchors)
            return f"a worker process for agents {await worker.run(changed)}"
        finally:
            self._begun.remove(worker)
            changed()
            with trio.CancelScope(shield=True):
                await worker.end()


class _Worker:
    """One process, and its control socket."""

    def __init__(self, process: trio.Process, control: socket.socket) -> None:
        control.setblocking(False)
        self._process = process
        self._raw = control
        self._control = trio.socket.from_stdlib_socket(control)
        self._errors = b""
        self._heard = trio.Event()
        self._why = ""
        self.ready = False
        """Whether it has answered, and has answered ever since."""
        self.connections = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, tls_dir: Path) -> "_Worker":
        """Raises OSError."""
        ours, theirs = wire.socket_pair()
        try:
            with theirs:
                process = await trio.lowlevel.open_process(
                    command(theirs.fileno(), tls_dir),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    env=environment(),
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours)

    async def run(self, changed: Callable[[], None]) -> str:
        """Until it has ended, or has to; gives why."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_errors)
            nursery.start_soon(self._watch, changed)
            await self._listen()
            self.ready = False
            # What it said before it ended is there at once; what it started does not exist.
            nursery.cancel_scope.cancel()
        return self._why or await self._ended()

    async def _listen(self) -> None:
        while True:
            try:
                packet = await wire.receive(self._control, wire.MOST_PACKET, 0)
            except (OSError, trio.ClosedResourceError):
                return
            if packet.kind == wire.MISTAKE:
                _log.error("a mistake in a worker process: %s", packet.content.decode(errors="replace"))
            elif packet.kind != wire.PING:
                return
            self._heard.set()

    async def _watch(self, changed: Callable[[], None]) -> None:
        while True:
            self._heard = trio.Event()
            self._say(wire.PING)
            with trio.move_on_after(PATIENCE) as scope:
                await self._heard.wait()
            if scope.cancelled_caught:
                self._give_up(f"did not answer for {PATIENCE:g} seconds")
            elif not self.ready and not self._why:
                self.ready = True
                changed()
            await trio.sleep(PING)

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            self._errors = (self._errors + data)[-_MOST_ERRORS:]

    async def _ended(self) -> str:
        with trio.move_on_after(END_DEADLINE):
            code = await self._process.wait()
            with suppress(OSError, ValueError):
                await self._read_errors()  # the rest
            last = self._errors.decode(errors="replace").strip().rpartition("\n")[2]
            how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
            return f"{how} ({last})" if last else how
        return "closed its connection to the primary"

    def show(self, anchors: Sequence[bytes]) -> None:
        try:
            with file_of(b"".join(anchors)) as file:
                self._say(wire.ANCHORS, file.fileno())
        except OSError as error:
            self._give_up(f"could not be told whom to accept ({error.strerror})")

    def take(self, transport: trio.SocketStream) -> HandedStream | None:
        """The stream of a connection that it has from now on; None if it can't take one."""
        ends: list[socket.socket] = []
        try:
            ends += wire.socket_pair()
            ends += socket.socketpair()
            ours_down, theirs_down, ours_up, theirs_up = ends
            given = [transport.socket.fileno(), theirs_down.fileno(), theirs_up.fileno()]
            socket.send_fds(self._raw, [wire.CONNECTION], given)
        except OSError:  # also of one that has just ended, or has no room now
            for end in ends:
                end.close()
            return None
        theirs_down.close()
        theirs_up.close()
        ours_down.setblocking(False)
        ours_up.setblocking(False)
        self.connections += 1
        return HandedStream(transport, ours_down, ours_up, self._lost_one)

    def _lost_one(self) -> None:
        self.connections -= 1

    def _say(self, packet: bytes, *fds: int) -> None:
        try:
            socket.send_fds(self._raw, [packet], fds)
        except BlockingIOError:
            self._give_up("takes nothing any more")
        except OSError:
            return  # it has ended, which is seen elsewhere

    def _give_up(self, why: str) -> None:
        self.ready = False
        self._why = self._why or f"{why} and was ended"
        self._process.kill()

    async def end(self) -> None:
        """With its control socket its connections close, and then it ends."""
        self.ready = False
        self._control.close()
        with trio.move_on_after(END_DEADLINE):
            await self._process.wait()
        self._process.kill()
        await self._process.wait()
        if self._process.stderr is not None:
            await self._process.stderr.aclose()


def command(fd: int, tls_dir: Path) -> list[str]:
    """-P: nothing is imported from the directory in which the primary happens to be."""
    return [sys.executable, "-P", "-m", "reconciler.sync.tls_worker", str(fd), str(tls_dir)]


def environment() -> Mapping[str, str]:
    """None of the primary's own, which may hold secrets; but modules come from where its own do."""
    return {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
