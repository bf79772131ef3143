"""Runs the commands that a task's `after` names: those that this host's own configuration allows."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from subprocess import DEVNULL, PIPE, STDOUT

import trio

from agent.accounts import SERVICES, Lookups, Unanswered
from agent.failures import TaskFailed
from agent.pulse import enter, quiet
from agent.rules import AgentRules
from agent.wire.messages import AfterResult, Task

MAX_OUTPUT = 4096
"""Characters of a command's output, the last ones, that go into the report."""

_HELD_OUTPUT = 64 * 1024
_LINGER = 1.0
"""Seconds to wait for the end of the output once a command has ended: what it started may hold it open."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TIMED_OUT = 124
"""The exit code reported for a command that was stopped, as `timeout` has it."""

NOT_STARTED = 127


def check_commands(names: Sequence[str], allowed: Mapping[str, tuple[str, ...]]) -> None:
    """Raises TaskFailed unless this host allows every one of `names`."""
    unknown = sorted({name for name in names if not allowed.get(name)})
    if unknown:
        raise TaskFailed(
            "CommandNotAllowed",
            f"this host does not allow the command {', '.join(repr(name) for name in unknown)}",
            hint="name it in agent.toml, as `trueup-agent join --allow NAME='...'` does",
        )


async def command_environment(project: str, target: str) -> dict[str, str]:
    """All that a command gets to see: nothing of the agent's own environment.

    Raises TaskFailed where the host does not say who the agent's user is.
    """
    try:
        user = await trio.to_thread.run_sync(Lookups().user, os.geteuid())
    except Unanswered as error:
        raise TaskFailed("Busy", str(error), hint=SERVICES) from error
    home, name = ("/", str(os.geteuid())) if user is None else (user.home or "/", user.name)
    return {
        "PATH": PATH,
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "LANG": "C.UTF-8",
        "TRUEUP_PROJECT": project,
        "TRUEUP_TARGET": target,
    }


async def run_command(
    name: str,
    arguments: Sequence[str],
    *,
    directory_fd: int,
    environment: Mapping[str, str],
    seconds: float,
    hide: Callable[[str], str] = str,
) -> AfterResult:
    """Runs one command in the directory open as `directory_fd`, without a shell.

    It has its own process group, which is killed whole when `seconds` are over or the task is
    cancelled. What it leaves running on purpose when it ends in time is left alone. `hide` cleans the
    output of secrets before it is cut.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            # The child enters the very directory that was written, whatever has its path now.
            cwd=f"/proc/self/fd/{directory_fd}",
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        return AfterResult(name=name, exit_code=NOT_STARTED, output=f"could not be started: {error.strerror}")
    assert process.stdout is not None
    held = _Tail()
    ended = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_collect, process.stdout, held)
            with trio.move_on_after(seconds):
                await process.wait()
                ended = True
            if not ended:
                _kill_group(process.pid)
                await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LINGER
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            with trio.CancelScope(shield=True):
                await process.wait()
        with trio.CancelScope(shield=True):
            await process.stdout.aclose()
    output = await trio.to_thread.run_sync(hide, held.text())
    if not ended:
        output += f"\nstopped after {seconds:.0f} s"
    return AfterResult(
        name=name,
        exit_code=process.returncode if ended and process.returncode is not None else TIMED_OUT,
        output=_excerpt(output),
        timed_out=not ended,
    )


async def run_after(
    task: Task,
    rules: AgentRules,
    directory_fd: int,
    *,
    hide: Callable[[str], str],
    done: list[AfterResult],
    what: str,
) -> None:
    """Runs the commands of a task, up to the first that fails; how each ended is added to `done`.

    Raises TaskFailed for that one. `what` says for people what is done already.
    """
    enter("command")
    environment = await command_environment(task.project, task.target_path) if task.after else {}
    for name in task.after:
        with quiet(rules.command_timeout + 60):
            result = await run_command(
                name,
                rules.commands[name],
                directory_fd=directory_fd,
                environment=environment,
                seconds=rules.command_timeout,
                hide=hide,
            )
        done.append(result)
        if result.exit_code != 0:
            raise TaskFailed(
                "CommandFailed",
                f"{what} and the command {name!r} ended with {result.exit_code}"
                f" ({last_lines(result.output) or 'it printed nothing'})",
                hint="it runs again with the next attempt",
            )


def last_lines(output: str, *, lines: int = 3, limit: int = 300) -> str:
    """The end of an output on one line, for a message."""
    wanted = [" ".join(line.split()) for line in output.splitlines() if line.strip()][-lines:]
    text = " | ".join(wanted)
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]


class _Tail:
    """The last lines of an output."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._cut = False

    def add(self, chunk: bytes | bytearray) -> None:
        self._held += chunk
        self._cut = self._cut or len(self._held) > _HELD_OUTPUT
        del self._held[:-_HELD_OUTPUT]

    def text(self) -> str:
        """Whole lines only: the rest of one that was cut may be the rest of a secret, which none knows."""
        text = self._held.decode(errors="replace")
        return text.partition("\n")[2] if self._cut else text


async def _collect(stream: trio.abc.ReceiveStream, held: _Tail) -> None:
    while chunk := await stream.receive_some(65536):
        held.add(chunk)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _excerpt(text: str) -> str:
    """The end of `text`, without control characters that could play tricks in a terminal or a log."""
    clean = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
    return clean.strip()[-MAX_OUTPUT:]
