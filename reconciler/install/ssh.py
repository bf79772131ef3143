"""The system's ssh: commands on a host, with the operator's own configuration, keys and known hosts.

Nobody is asked anything (BatchMode): what would need a password fails with ssh's own words. Scripts stand on
the command line, so nothing secret is in them; that goes through standard input.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Final

from reconciler.child import Ended, Killed, run_child
from reconciler.errors import SettingsError, TrueupError

MAX_OUTPUT: Final = 4 << 20
SPARE: Final = 30.0
"""Seconds that a command may take longer here than there: to connect, and to be killed there first."""

_DESTINATION: Final = re.compile(r"[A-Za-z0-9_][^\s\0-]*[^\s\0]*")
_NOT_REACHED: Final = 255
"""ssh's own exit code for its own failures."""


class HostUnreachable(TrueupError):
    """ssh did not get to the host, or lost it."""

    reason = "HostUnreachable"
    retryable = True


class CommandFailed(TrueupError):
    """A command on the host ended with an error."""

    reason = "CommandFailed"

    def __init__(self, message: str, *, output: str) -> None:
        super().__init__(message)
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

    async def run(self, script: str, *, stdin: bytes = b"", deadline: float) -> str:
        """Run a shell script there, to its end; what it printed. It is killed there after `deadline` seconds.

        Raises HostUnreachable, or CommandFailed with what the script said.
        """
        shell = f"timeout -k 5 {int(deadline)} sh -euc {quote(script)}"
        command = [
            *("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
            *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
            *(("-F", str(self.config)) if self.config is not None else ()),
            *(("-p", str(self.port)) if self.port is not None else ()),
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
                hint=f"see that `ssh {self.destination}` works without a question",
            )
        if ran.code:
            why = "it took too long" if ran.code in (124, 137) else last or f"exit code {ran.code}"
            raise CommandFailed(why, output=said)
        return said
