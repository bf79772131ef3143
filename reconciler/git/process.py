"""Every git child process of the daemon starts here: hardened, with a deadline, in its own process group.

The environment is built from nothing, so that no `GIT_*` variable and no configuration of the account
reaches git; hooks, file system monitors, filters and submodules are off; only https and ssh may be spoken,
and `file` where the operator allowed it. Nobody is ever asked for a password. On the deadline, on too much
output and on cancellation the whole group is killed, transport helpers and ssh included.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.child import Ended, Killed, NotStarted, run_child
from reconciler.git.failures import GitFailed, failure, timed_out

MAX_OUTPUT: Final = 64 * 1024 * 1024

# What a child may see of our own environment: where programs, keys, proxies and certificates are.
_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
)

# ssh gives up by itself on a dead peer, also when it has outlived us. No shared connections: their master
# process would live outside our process group and hold our pipes open.
_SSH_COMMAND: Final = (
    "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"
    " -o ControlMaster=no -o ControlPath=none"
)

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    # Later versions of git may change these defaults.
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
    "SSH_ASKPASS_REQUIRE": "never",
    "LC_ALL": "C",
}

_CONFIG: Final = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "transfer.fsckObjects=true",
    # Harmless marks of old tools; a repository that has them cannot be mended without a new history.
    "fetch.fsck.zeroPaddedFilemode=warn",
    "fetch.fsck.missingSpaceBeforeDate=warn",
    "fetch.fsck.badTimezone=warn",
    "gc.auto=0",
    "maintenance.auto=false",
    # Larger blobs are streamed instead of held in memory.
    "core.bigFileThreshold=32m",
    # A transfer without a byte for this long ends by itself, also when it has outlived us.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
)


@dataclass(frozen=True, slots=True)
class GitOptions:
    """What the operator decides about git; made by the settings.

    `deadline`: seconds for one command, and for a transfer the longest time without any sign of progress.
    `transfer_deadline`: seconds for a whole fetch or repack. `ssh_command` and `askpass`: the operator's
    GIT_SSH_COMMAND and GIT_ASKPASS; without them ssh uses the account's keys and https has no credentials.
    """

    allow_local: bool = False
    deadline: float = 60.0
    transfer_deadline: float = 3600.0
    ssh_command: str | None = None
    askpass: str | None = None

    def environment(self) -> dict[str, str]:
        """The variables that carry these choices to `run_git`."""
        chosen = {"GIT_SSH_COMMAND": self.ssh_command, "GIT_ASKPASS": self.askpass}
        return {name: value for name, value in chosen.items() if value}


@dataclass(frozen=True, slots=True)
class GitResult:
    """How a child process ended: its exit code, all of its output, the end of its error output."""

    code: int
    stdout: bytes
    stderr: str


async def run_git(
    args: Sequence[str],
    *,
    git_dir: Path | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    deadline: float = 60.0,
    idle: float | None = None,
    allow_local: bool = False,
    env: Mapping[str, str] = {},
    ok_codes: Sequence[int] = (0,),
    max_output: int = MAX_OUTPUT,
    where: str | None = None,
    keep_fds: Sequence[int] = (),
) -> bytes:
    """Standard output of `git ARGS`; see `git_result` for the arguments.

    Raises GitUnavailable (network, credentials, time), GitRefused (a transport or object that is not
    accepted) or GitFailed when the exit code is not one of `ok_codes`.
    """
    result = await git_result(
        args,
        git_dir=git_dir,
        cwd=cwd,
        stdin=stdin,
        deadline=deadline,
        idle=idle,
        allow_local=allow_local,
        env=env,
        max_output=max_output,
        where=where,
        keep_fds=keep_fds,
    )
    if result.code not in ok_codes:
        raise failure(result.code, result.stderr, where or _what(args))
    return result.stdout


async def git_result(
    args: Sequence[str],
    *,
    git_dir: Path | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    deadline: float = 60.0,
    idle: float | None = None,
    allow_local: bool = False,
    env: Mapping[str, str] = {},
    max_output: int = MAX_OUTPUT,
    where: str | None = None,
    keep_fds: Sequence[int] = (),
) -> GitResult:
    """Run `git ARGS` to its end, whatever its exit code.

    `deadline`: seconds in all. `idle`: seconds without a byte of output, for commands that show progress.
    `max_output`: bytes of standard output, more is GitFailed. `where`: what to name in errors, such as the
    repository's URL. `keep_fds`: descriptors the child holds open, such as a lock that must outlive us.
    Raises GitUnavailable when time ran out, GitFailed when git cannot be started.
    """
    what = where or _what(args)
    config = [*_CONFIG, f"protocol.file.allow={'always' if allow_local else 'never'}"]
    command = ["git", *(word for setting in config for word in ("-c", setting)), *args]
    outcome = await run_child(
        command,
        cwd=cwd or git_dir or Path("/"),
        env=_environment(git_dir, env),
        deadline=deadline,
        max_output=max_output,
        stdin=stdin,
        idle=idle,
        keep_fds=keep_fds,
    )
    match outcome:
        case Ended(code=code, stdout=stdout, stderr=stderr):
            return GitResult(code, stdout, stderr)
        case NotStarted(missing="git"):
            raise GitFailed(f"{what}: git is not installed", hint="install git 2.39 or later")
        case NotStarted(missing=str(missing)):
            raise GitFailed(f"{what}: {missing} is not there")
        case NotStarted(problem=problem):
            raise GitFailed(f"{what}: git could not be started: {problem}")
        case Killed(why="output"):
            raise GitFailed(f"{what}: git printed more than {max_output} bytes")
        case Killed(why=why):
            raise timed_out(what, idle if why == "idle" and idle is not None else deadline)


def inherited_environment() -> dict[str, str]:
    """What ssh-keygen and gpg may see of our own environment: where programs and an ssh agent are."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK") if name in os.environ}
    return kept | {"SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}


def _environment(git_dir: Path | None, extra: Mapping[str, str]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= _ENVIRONMENT
    environment |= {"GIT_SSH_COMMAND": _SSH_COMMAND, "GIT_ASKPASS": "/bin/false"}
    if git_dir is not None:
        environment["GIT_DIR"] = str(git_dir.absolute())
    environment.update(extra)
    return environment


def _what(args: Sequence[str]) -> str:
    """Names the command in an error when the caller gave no better name."""
    return f"git {next((arg for arg in args if not arg.startswith('-')), '')}".strip()
