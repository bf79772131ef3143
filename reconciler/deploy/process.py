"""Runs a child process whose whole group ends with it, whatever happens, and captures what it prints."""

import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import trio

from reconciler.deploy.build_user import BuildUser
from reconciler.deploy.output import DEFAULT_MAX_OUTPUT, Capture, Masker
from reconciler.errors import StepFailed
from reconciler.secrets.values import Secret, revealed

DEFAULT_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

SETTLE = 0.5
"""Seconds that helpers in the background have to finish printing after the leader ended."""

AFTER_KILL = 5.0
"""Seconds to wait for a killed process; one that hangs in the kernel must not hang us."""

CHUNK = 64 * 1024
IN_PLACE = 4 * 1024
"""Bytes that are masked at once; searching more of them for many secrets would hold up everything else."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a child ended. A negative exit code is the signal that ended it; `output` is masked."""

    exit_code: int
    output: str
    timed_out: bool
    duration: float
    """Seconds."""


class StartFailed(StepFailed):
    """The process could not be started: no such command, no permission, or an environment too large."""


async def run_captured(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str | Secret],
    timeout: float,  # noqa: ASYNC109 - the child's, which must be ended, not only left
    masker: Masker,
    user: BuildUser | None = None,
    on_line: Callable[[str], None] | None = None,
    max_output: int = DEFAULT_MAX_OUTPUT,
    grace: float = DEFAULT_GRACE,
) -> Completed:
    """Run `argv` in `cwd` with exactly the environment `env`, as `user` if one is given.

    The child leads its own session and process group, reads nothing on standard input, and has
    standard output and error in one stream. After `timeout` seconds, or when the caller is cancelled,
    the whole group gets SIGTERM and, `grace` seconds later, SIGKILL; only then does this return.

    After a normal end of the leader the rest of its group is ended too: nothing that a task leaves in
    the background runs on unwatched. A task that wants something to stay starts it through what will
    watch over it (docker, systemd), or in a session of its own.

    `on_line` gets each masked line as it comes and must not raise. At most `max_output` characters
    are kept, from the beginning and the end. Raises StartFailed.
    """
    process = await _start(argv, cwd, env, user)
    capture = Capture(masker, max_output)
    report = on_line or _ignore
    started = trio.current_time()
    timed_out = False
    async with _leader(process) as leader, trio.open_nursery() as nursery:
        drain = _Drain(leader.output, capture, report)
        nursery.start_soon(drain.run)
        try:
            with trio.move_on_after(timeout) as limit:
                await leader.wait_exit()
            timed_out = limit.cancelled_caught
        finally:
            with trio.CancelScope(shield=True):
                await _end_group(leader, drain, grace)
            drain.stop()
    for line in capture.close():
        report(line)
    code = process.returncode
    return Completed(
        exit_code=-signal.SIGKILL if code is None else code,
        output=capture.text(),
        timed_out=timed_out,
        duration=trio.current_time() - started,
    )


async def _start(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str | Secret], user: BuildUser | None
) -> trio.Process:
    # Popen's own errors don't say which variable it was.
    for name in filter(lambda name: not _can_pass(name, env[name]), env):
        raise StartFailed(
            f"variable {name!r} cannot be passed to a process",
            hint="a name has no '=', and neither name nor value has a NUL character or a half of one",
        )
    identity: dict[str, Any] = {}
    if user is not None:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": list(user.groups)}
    try:
        return await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={name: revealed(value) for name, value in env.items()},
            start_new_session=True,
            **identity,
        )
    except OSError as error:
        where = f" ({error.filename})" if error.filename and error.filename != argv[0] else ""
        problem = f"{error.strerror}{where}"
    except ValueError:
        problem = "its arguments cannot be passed to a process"
    # Outside `except`: the frames of the error that was caught hold the environment in the clear.
    who = f" as {user.name}" if user is not None else ""
    raise StartFailed(f"cannot start {argv[0]}{who} in {cwd}: {problem}")


def _can_pass(name: str, value: str | Secret) -> bool:
    if not name or "=" in name:
        return False
    try:
        return b"\0" not in os.fsencode(name) + os.fsencode(revealed(value))
    except UnicodeEncodeError:
        return False


class _Leader:
    """The child we started. It stays unreaped until its group is dealt with, so that the number of
    the group cannot come to mean another one meanwhile."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = cast(trio.abc.ReceiveStream, process.stdout)  # always a pipe, see `_start`
        self.exited = False
        self._pidfd = os.pidfd_open(process.pid)

    async def wait_exit(self) -> None:
        if not self.exited:
            await trio.lowlevel.wait_readable(self._pidfd)
            self.exited = True

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        os.close(self._pidfd)


@asynccontextmanager
async def _leader(process: trio.Process) -> AsyncIterator[_Leader]:
    leader = _Leader(process)
    try:
        yield leader
    finally:
        leader.close()
        with trio.CancelScope(shield=True):
            await leader.output.aclose()


class _Drain:
    """Reads all output, also while the caller is being cancelled: a full pipe would hold up the child."""

    def __init__(
        self, stream: trio.abc.ReceiveStream, capture: Capture, report: Callable[[str], None]
    ) -> None:
        self._stream = stream
        self._capture = capture
        self._report = report
        self._scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()
        """All who could write have closed their end."""

    async def run(self) -> None:
        try:
            with self._scope:
                while chunk := await self._stream.receive_some(CHUNK):
                    if len(chunk) < IN_PLACE:
                        lines = self._capture.feed(chunk)
                    else:
                        lines = await trio.to_thread.run_sync(self._capture.feed, chunk)
                    for line in lines:
                        self._report(line)
        finally:
            self.ended.set()

    def stop(self) -> None:
        self._scope.cancel()


async def _end_group(leader: _Leader, drain: _Drain, grace: float) -> None:
    """Leave no process of the group behind, and the leader reaped."""
    if leader.exited:
        await _within(SETTLE, drain.ended.wait)
    if not (leader.exited and drain.ended.is_set()):
        leader.signal_group(signal.SIGTERM)
        await _within(grace, leader.wait_exit, drain.ended.wait)
    leader.signal_group(signal.SIGKILL)
    await _within(AFTER_KILL, leader.wait_exit)
    if leader.exited:
        await leader.process.wait()
    # Who still holds the pipe went into a session of its own; what it prints is not ours to wait for.
    await _within(SETTLE, drain.ended.wait)


async def _within(seconds: float, *waits: Callable[[], Any]) -> None:
    with trio.move_on_after(seconds if math.isfinite(seconds) else math.inf):
        for wait in waits:
            await wait()


def _ignore(line: str) -> None:
    """For callers that want no lines."""
