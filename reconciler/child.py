"""Runs a program for what it prints: bounded in time and output, its whole process group ended with it.

For programs that are asked something (git, sops). What runs a repository's own code is `deploy/process.py`.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import trio

_MAX_STDERR: Final = 64 * 1024
"""Bytes of the end of standard error that are kept: enough for any message."""
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that ran to its end: its exit code, all of its output, the end of its error output."""

    code: int
    stdout: bytes = field(repr=False)
    stderr: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Killed:
    """A child that was killed: `deadline` or `idle` ran out, or it printed more than it may."""

    why: Literal["deadline", "idle", "output"]


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Why a child could not be started. Not an exception: its frames would hold the child's environment."""

    problem: str
    missing: str | None = None
    """The file that is not there: the program, its interpreter or the directory."""


async def run_child(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    deadline: float,
    max_output: int,
    stdin: bytes = b"",
    idle: float | None = None,
    keep_fds: Sequence[int] = (),
) -> Ended | Killed | NotStarted:
    """Run a command with exactly this environment, in a session of its own.

    `deadline`: seconds in all. `idle`: seconds without a byte of output. `max_output`: bytes of standard
    output. `keep_fds`: descriptors that the child holds open. On either limit, and where the caller is
    cancelled, the whole group is killed before this returns.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=-1,
            stdout=-1,
            stderr=-1,
            cwd=cwd,
            env=env,
            start_new_session=True,
            pass_fds=tuple(keep_fds),
        )
    except FileNotFoundError as error:
        return NotStarted(error.strerror or "not found", str(error.filename or command[0]))
    except OSError as error:
        return NotStarted(error.strerror or type(error).__name__)
    assert process.stdin and process.stdout and process.stderr
    stdout, stderr = bytearray(), bytearray()
    ended = too_much = False
    limit = trio.current_time() + deadline

    def next_deadline() -> float:
        return limit if idle is None else min(limit, trio.current_time() + idle)

    async def feed(stream: trio.abc.SendStream) -> None:
        async with stream:
            try:
                await stream.send_all(stdin)
            except trio.BrokenResourceError:
                return  # it ended early; its exit code and message say why

    async def collect_errors(stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            scope.deadline = next_deadline()
            stderr.extend(chunk)
            del stderr[:-_MAX_STDERR]

    try:
        with trio.CancelScope(deadline=next_deadline()) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, process.stdin)
                nursery.start_soon(collect_errors, process.stderr)
                while chunk := await process.stdout.receive_some(_CHUNK):
                    scope.deadline = next_deadline()
                    stdout.extend(chunk)
                    if len(stdout) > max_output:
                        too_much = True
                        nursery.cancel_scope.cancel()
            if not too_much:
                code = await process.wait()
                ended = True
    finally:
        with trio.CancelScope(shield=True):
            if not ended:
                # Nobody has collected the leader yet, so the group's id cannot belong to anybody else.
                _kill_group(process.pid)
                code = await process.wait()
            await process.stdout.aclose()
            await process.stderr.aclose()
    if too_much:
        return Killed("output")
    if scope.cancelled_caught:
        return Killed("deadline" if idle is None or trio.current_time() >= limit else "idle")
    return Ended(code, bytes(stdout), stderr.decode("utf-8", "replace"))


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
