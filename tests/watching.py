"""A `trueup` command that goes on, for tests: what it prints is waited for, then it is interrupted."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.world import PATIENCE, World


@dataclass
class Watching:
    """A running command and what it printed so far."""

    process: trio.Process
    out: str = ""
    err: str = ""
    _more: trio.Event = field(default_factory=trio.Event)

    @property
    def documents(self) -> list[Any]:
        """Of a command that prints one on each line."""
        return [json.loads(line) for line in self.out.split("\n")[:-1]]

    async def read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        async for chunk in stream:
            setattr(self, name, getattr(self, name) + chunk.decode())
            self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        """Until what was printed is as it should be."""
        with trio.move_on_after(PATIENCE):
            while not holds():
                await self._more.wait()
            return
        raise AssertionError(f"this never came:\n{self.out}\n{self.err}")

    async def interrupt(self) -> int:
        """Ctrl-C; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.end()

    async def end(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def watching(world: World, *arguments: str, **environment: str) -> AsyncIterator[Watching]:
    """Run a `trueup` command beside the test; it is killed at the end unless it has ended."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "reconciler", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**world.environment, **environment},
        cwd=world.root,
    )
    running = Watching(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.read, "out")
        nursery.start_soon(running.read, "err")
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
