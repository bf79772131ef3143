"""Every git child process of the daemon starts here: hardened, with a deadline, in its own process group.

The environment is built from nothing, so that no `GIT_*` variable and no configuration of the account
reaches git; hooks, file system monitors, filters and submodules are off; only https and ssh may be spoken,
and `file` where the operator allowed it. Nobody is ever asked for a password. On the deadline, on too much
output and on cancellation the whole group is killed, transport helpers and ssh included.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from reconciler.git.failures import GitFailed, failure, timed_out

MAX_OUTPUT: Final = 64 * 1024 * 1024
_MAX_STDERR: Final = 64 * 1024
"""Bytes of the end of standard error that are kept: enough for any message and what the remote said."""
_CHUNK: Final = 64 * 1024

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
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=-1,
            stdout=-1,
            stderr=-1,
            cwd=cwd or git_dir or Path("/"),
            env=_environment(git_dir, env),
            start_new_session=True,
            pass_fds=tuple(keep_fds),
        )
    except FileNotFoundError as error:
        if error.filename not in ("git", None):
            raise GitFailed(f"{what}: {error.filename} is not there") from None
        raise GitFailed(f"{what}: git is not installed", hint="install git 2.39 or later") from None
    except OSError as error:
        raise GitFailed(f"{what}: git could not be started: {error.strerror}") from None
    return await _attend(process, what, stdin, deadline, idle, max_output)


async def _attend(
    process: trio.Process, what: str, stdin: bytes, deadline: float, idle: float | None, max_output: int
) -> GitResult:
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
                return  # git ended early; its exit code and message say why

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
        raise GitFailed(f"{what}: git printed more than {max_output} bytes")
    if scope.cancelled_caught:
        raise timed_out(what, deadline if idle is None or trio.current_time() >= limit else idle)
    return GitResult(code, bytes(stdout), stderr.decode("utf-8", "replace"))


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


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
