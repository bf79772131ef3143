"""A real `trueup serve` process for tests: started, waited for by what it logs, asked over HTTP, ended."""

import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from tests.world import PATIENCE, World

Line = dict[str, Any]

PASS_ENDS = ("pass ended", "pass ended; nothing to do", "no pass could be made")
"""What a primary that was started with `-v` logs at the end of each pass."""


@dataclass
class Serving:
    """A running primary, its log as it comes, and its address."""

    process: trio.Process
    lines: list[Line] = field(default_factory=list)
    http: str = ""
    socket: str = ""
    _more: trio.Event = field(default_factory=trio.Event)

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.lines.append({"event": line.decode()})
            self._tell()
        self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def said(self, event: str, *, after: int = 0, **fields: object) -> Line:
        """The first line of the log from `after` on with this event and these fields, now or later."""

        def find() -> Line | None:
            matching = [
                line
                for line in self.lines[after:]
                if line.get("event") == event and fields.items() <= line.items()
            ]
            return matching[0] if matching else None

        return await self.until(find, event)

    async def looked(self, after: int = 0) -> None:
        """Once a pass has ended whose end was logged from `after` on; of one that was started with `-v`."""

        def find() -> Line | None:
            return next((line for line in self.lines[after:] if line.get("event") in PASS_ENDS), None)

        await self.until(find, "the end of a pass")

    async def applied(self, *, after: int = 0, **fields: object) -> Line:
        """The step that was applied, as `said` finds it, once the pass that it belongs to has ended."""
        line = await self.said("step applied", after=after, **fields)
        # One pass is made after the other, so the next that ends is its own. The trace says nothing more:
        # where the step went on without its pass, that has ended before.
        await self.said("pass ended", after=self.lines.index(line, after))
        return line

    async def look(self) -> None:
        """Have a pass made, and wait for the end of one that began later than now; `serve` logs with `-v`."""
        answered = await self.ask_locally("POST", "/api/reconcile")
        assert answered.status_code == 202, answered.text
        asked = answered.headers["x-trueup-trace"]

        def find() -> Line | None:
            # A pass for several who asked bears the trace of the first of them.
            shared = (line for line in self.lines if asked in line.get("traces", ()))
            trace = next((line["trace"] for line in shared), asked)
            ends = (line for line in self.lines if line.get("event") in PASS_ENDS)
            return next((line for line in ends if line.get("trace") == trace), None)

        await self.until(find, "the end of the pass that was asked for")

    async def until(self, find: Callable[[], Line | None], what: str) -> Line:
        with trio.move_on_after(PATIENCE):
            while (found := find()) is None:
                if self.process.poll() is not None and self.process.returncode is not None:
                    break
                await self._more.wait()
            if found is not None:
                return found
        shown = "\n".join(map(str, self.lines[-40:]))
        raise AssertionError(f"{what!r} was not logged; exit code {self.process.returncode}\n{shown}")

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request to the open address."""
        async with httpx.AsyncClient(base_url=self.http, trust_env=False, timeout=PATIENCE) as client:
            return await client.request(method, path, **options)

    async def ask_locally(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request to the socket."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://primary", trust_env=False, timeout=PATIENCE
        ) as client:
            return await client.request(method, path, **options)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def serving(
    world: World,
    *,
    command: Sequence[str] = ("-m", "reconciler"),
    options: Sequence[str] = (),
    **environment: str,
) -> AsyncIterator[Serving]:
    """`trueup serve` on a world's repositories, ready; killed at the end unless it has ended.

    `command`: Python's arguments that run `trueup`; `options`: more for `serve`.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, *command, "serve", "--log-format", "json", *options],
        stderr=-1,
        env={**world.environment, "TRUEUP_HTTP_ADDR": "127.0.0.1:0", **environment},
        cwd=world.root,
    )
    running = Serving(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.read_log)
        try:
            line = await running.said("serving")
            running.http, running.socket = f"http://{line['http']}", line["socket"]
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
