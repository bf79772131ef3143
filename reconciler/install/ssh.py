"""The system's ssh: commands on a host, with the operator's own configuration, keys and known hosts.

Nobody is asked anything (BatchMode): what would need a password or a look at a host's key fails with ssh's
own words. Scripts stand on the command line, where others can read them, and `sudo` logs them; so nothing
secret is in them. That goes through standard input.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join, quote
from typing import Final

from reconciler.child import Ended, Killed, run_child
from reconciler.errors import SettingsError, TrueupError

MAX_OUTPUT: Final = 4 << 20
SPARE: Final = 60.0
"""Seconds that a command may take longer here than there: to connect, and to be killed there first."""
HALT_DEADLINE: Final = 60.0

_DESTINATION: Final = re.compile(r"[A-Za-z0-9_][^\s\0]*")
_NOT_REACHED: Final = 255
"""ssh's own exit code for its own failures."""

# What an operator's configuration may switch on for their own sessions, and no installation needs: it gives
# the host no agent, display or port of ours, runs nothing here, and is no terminal. How the host's key is
# checked, and which keys are offered, is theirs to say.
_OPTIONS: Final = (
    *("-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ConnectionAttempts=2", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)

_ALL_MAY_READ: Final = "umask 022\n"
"""Even where the account keeps all that it makes to itself; what is secret has modes of its own."""
_MARK: Final = "TRUEUP_INSTALL"
_HALT: Final = """\
running() {
  for process in /proc/[0-9]*; do
    if { tr '\\0' '\\n' < "$process/environ"; } 2>/dev/null | grep -qx '%s'; then echo "${process#/proc/}"; fi
  done
}
tries=0; signal=TERM
while found=$(running); [ -n "$found" ]; do
  tries=$((tries + 1))
  [ $tries -lt 20 ] || signal=KILL
  [ $tries -lt 40 ] || { echo "still running: "$found >&2; exit 1; }
  kill -s $signal $found 2>/dev/null || :
  sleep 0.2
done
"""


class HostUnreachable(TrueupError):
    """ssh did not get to the host, or lost it."""

    reason = "HostUnreachable"
    retryable = True


class CommandFailed(TrueupError):
    """A command on the host ended with an error."""

    reason = "CommandFailed"

    def __init__(self, message: str, *, output: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.output = output


@dataclass(frozen=True, slots=True)
class SshHost:
    """One host, as ssh names it: `user@host`, or a `Host` of the operator's ~/.ssh/config."""

    destination: str
    env: Mapping[str, str] = field(repr=False)
    port: int | None = None
    config: Path | None = None
    sudo: bool = False

    def __post_init__(self) -> None:
        if not _DESTINATION.fullmatch(self.destination):
            raise SettingsError(f"--ssh {self.destination!r} is not accepted", hint="give user@host")

    @property
    def _where(self) -> list[str]:
        """What ssh has to be told to get there, the destination last."""
        config = ("-F", str(self.config)) if self.config is not None else ()
        return [*config, *(("-p", str(self.port)) if self.port is not None else ()), self.destination]

    async def run(self, script: str, *, stdin: bytes = b"", deadline: float, mark: str = "") -> str:
        """Run a shell script there, to its end; what it printed. It is killed there after `deadline` seconds.

        `mark`: by which `halt` finds it, and what it started, where its end was not heard of. Raises
        HostUnreachable, or CommandFailed with what the script said.
        """
        shell = f"timeout -k 5 {int(deadline)} sh -euc {quote(_ALL_MAY_READ + script)}"
        if mark:
            shell = f"env {_MARK}={quote(mark)} {shell}"
        command = [
            *("ssh", *_OPTIONS),
            *self._where[:-1],
            *("--", self.destination, f"sudo -n -- {shell}" if self.sudo else shell),
        ]
        limit = deadline + SPARE
        ran = await run_child(
            command, cwd=Path("/"), env=self.env, deadline=limit, max_output=MAX_OUTPUT, stdin=stdin
        )
        if isinstance(ran, Killed):
            raise HostUnreachable(f"{self.destination} did not answer in time")
        if not isinstance(ran, Ended):
            raise SettingsError(f"ssh cannot be started: {ran.problem}", hint="install openssh-client here")
        said = ran.stdout.decode("utf-8", "replace") + ran.stderr
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        if ran.code == _NOT_REACHED:
            raise HostUnreachable(
                f"{self.destination} cannot be reached: {last or 'ssh says nothing'}",
                hint=f"see that `{join(['ssh', *self._where])}` works without a question",
            )
        if ran.code:
            raise _failure(ran.code, last, said, sudo=self.sudo)
        return said

    async def halt(self, mark: str) -> None:
        """End all that runs there under a mark, and wait until it has ended."""
        await self.run(_HALT % f"{_MARK}={mark}", deadline=HALT_DEADLINE)


def _failure(code: int, last: str, said: str, *, sudo: bool) -> CommandFailed:
    if code in (124, 137):
        return CommandFailed("it took too long", output=said)
    hint = None
    if sudo and (code, last.partition(":")[0]) == (1, "sudo"):
        hint = "let that account use sudo there without a password (NOPASSWD), or log in as root"
    elif code == 127 and "timeout" in last:
        hint = "the host needs `timeout`, of coreutils or busybox"
    return CommandFailed(last or f"exit code {code}", output=said, hint=hint)
