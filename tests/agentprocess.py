"""A real `python -m agent` process for tests: started, waited for by what it says, ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 120.0
"""Seconds after which an agent that should have said something, or have ended, fails its test; only a hang
gets there."""


def agent_environment(**variables: str) -> dict[str, str]:
    """This process's environment without any SYNC_ or TRUEUP_ variable, and with these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SYNC_", "TRUEUP_", "NOTIFY_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | variables


def agent_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent", *arguments]


async def run_agent_command(
    *arguments: str, environ: Mapping[str, str] | None = None, deadline: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run `join`, `status` or the like to its end; gives exit code and output whatever they are."""
    with trio.fail_after(deadline):
        done = await trio.run_process(
            agent_command(*arguments),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd="/",
            env=dict(environ or agent_environment()),
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass
class AgentProcess:
    """A running agent. `events` holds each log line so far, as parsed JSON."""

    process: trio.Process
    events: list[dict[str, str]] = field(default_factory=list)
    ended: bool = False
    _arrived: trio.Event = field(default_factory=trio.Event)

    async def wait_event(self, name: str, *, after: int = 0, **fields: str) -> dict[str, str]:
        """The first log event of that name (`connected`, `task ended`, ...) from number `after` on.

        Fails, showing what the agent did say, if it ends or says nothing of the kind in time.
        """
        with trio.move_on_after(DEADLINE):
            while True:
                for event in self.events[after:]:
                    if event["event"] == name and fields.items() <= event.items():
                        return event
                if self.ended:
                    break
                await self._arrived.wait()
        raise AssertionError(f"the agent never said {name!r}; it said {self.events}")

    async def wait_connected(self, *, after: int = 0) -> None:
        await self.wait_event("connected", after=after)

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(DEADLINE):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL, as a crash of the host would."""
        self.process.kill()
        with trio.fail_after(DEADLINE):
            await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            self.events += [_event(line) for line in lines]
            self._wake()
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()


def _event(line: bytes) -> dict[str, str]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"event": "not a log line", "text": line.decode(errors="replace")}
    return parsed if isinstance(parsed, dict) and "event" in parsed else {"event": "?", "text": str(parsed)}


@asynccontextmanager
async def agent_process(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> AsyncIterator[AgentProcess]:
    """`trueup-agent run` for the time of the block; killed at its end if it still runs then."""
    command = agent_command("run", "--log-format", "json", *arguments)
    if config is not None:
        command += ["--config", str(config)]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=dict(environ or agent_environment()),
    )
    agent = AgentProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent._read)
            try:
                yield agent
            finally:
                if process.poll() is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    finally:
        if process.stderr is not None:
            with trio.CancelScope(shield=True):
                await process.stderr.aclose()
