"""What git's exit code and error output mean for the person who must act.

Git has one exit code for nearly everything, so the text decides; `LC_ALL=C` keeps it in English. Each class
of failure gives one line: which repository, what is wrong, what to do.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from reconciler.errors import GitRefused, GitUnavailable, TrueupError
from reconciler.git.urls import DECEIVING, redact, shown

_MAX_WORDS: Final = 300

_PADDING: Final = ("hint:", "warning:", "Please make sure", "and the repository exists")
_EMPTY_PHRASES: Final = ("fatal: Could not read from remote repository", "fatal: the remote end hung up")


class GitFailed(TrueupError):
    """A git command failed for a reason that is neither the network nor the spec."""

    reason = "GitFailed"
    retryable = True


class DiskFull(GitFailed):
    """There is no room left for a mirror or a work tree."""

    reason = "DiskFull"


class MirrorBroken(GitFailed):
    """The local copy of a repository cannot be read; it is made anew from the remote."""

    reason = "MirrorBroken"


@dataclass(frozen=True, slots=True)
class _Class:
    pattern: re.Pattern[str]
    kind: type[TrueupError]
    message: str
    hint: str | None = None


def _class(pattern: str, kind: type[TrueupError], message: str, hint: str | None = None) -> _Class:
    return _Class(re.compile(pattern), kind, message, hint)


# The first that matches decides, so what names a cause stands before what names a consequence.
_CLASSES: Final = (
    _class(
        r"No space left on device|Disk quota exceeded",
        DiskFull,
        "the disk is full",
        "free space under the state directory",
    ),
    _class(
        r"transport '[^']*' not allowed",
        GitRefused,
        "its transport is not allowed",
        "use https or ssh; local repositories need TRUEUP_ALLOW_LOCAL_REPOS=1",
    ),
    _class(
        r"fsck error in packed object|object [0-9a-f]{40,64}: (?!not a )[a-z][A-Za-z]+: ",
        GitRefused,
        "it holds an object that git's own check refuses",
        "run `git fsck --strict` in a clone and mend the history",
    ),
    _class(
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution"
        r"|nodename nor servname",
        GitUnavailable,
        "the host name is unknown",
        "check the URL and this machine's name resolution",
    ),
    _class(
        r"Connection refused|Couldn't connect to server",
        GitUnavailable,
        "the connection was refused",
        "check that the server runs and the port is right",
    ),
    _class(
        r"Connection timed out|Operation timed out|Operation too slow|Timeout|timed out",
        GitUnavailable,
        "the connection timed out",
    ),
    _class(
        r"No route to host|Network is unreachable",
        GitUnavailable,
        "there is no route to the host",
        "check this machine's network",
    ),
    _class(
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known",
        GitUnavailable,
        "the server's ssh host key is not the known one",
        "add the right key to known_hosts of the account that runs trueup",
    ),
    _class(
        r"SSL certificate problem|certificate verif|certificate subject name|gnutls_handshake|SSL_connect",
        GitUnavailable,
        "the server's TLS certificate was not accepted",
        "check the certificate, or name your authority in GIT_SSL_CAINFO",
    ),
    _class(
        r"Authentication failed|could not read (Username|Password)|Permission denied \(|Access denied"
        r"|returned error: 40[13]|Invalid username or|Too many authentication failures",
        GitUnavailable,
        "the server did not accept our credentials",
        "check the ssh key or TRUEUP_GIT_ASKPASS, and that the account may read and write there",
    ),
    _class(
        r"[Rr]epository not found|repository '[^']*' not found|returned error: 404"
        r"|does not appear to be a git repository|project you were looking for could not be found"
        r"|repository '[^']*' does not exist",
        GitUnavailable,
        "no such repository there, or our credentials do not show it",
        "check the URL and the permissions",
    ),
    _class(
        r"detected dubious ownership",
        GitUnavailable,
        "it belongs to another user",
        "run trueup as its owner, or change the owner",
    ),
    _class(r"Unsupported proxy|proxy", GitUnavailable, "the proxy did not let us through"),
    _class(
        r"returned error: 429|rate limit",
        GitUnavailable,
        "the server limits our requests",
        "poll less often (TRUEUP_INTERVAL)",
    ),
    _class(r"returned error: 5\d\d", GitUnavailable, "the server reported an error of its own"),
    _class(
        r"unable to access '|Could not read from remote repository|the remote end hung up"
        r"|Connection (closed|reset)|[Cc]onnection to \S+ closed|kex_exchange|early EOF|unexpected disconnect"
        r"|RPC failed|Recv failure|Send failure|ssh: connect to host|expected flush after ref listing",
        GitUnavailable,
        "the connection broke",
    ),
)


def failure(code: int, stderr: str, where: str) -> TrueupError:
    """The error for a git command that ended with `code`; `where` names the repository or the command."""
    for known in _CLASSES:
        if known.pattern.search(stderr):
            return known.kind(f"{shown(where)}: {known.message} ({words_of(stderr)})", hint=known.hint)
    said = words_of(stderr) or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
    return GitFailed(f"{shown(where)}: git failed: {said}")


def local_failure(code: int, stderr: str, where: str) -> TrueupError:
    """The error for a command on a sound mirror that had no reason to fail: MirrorBroken, unless git was
    killed or the disk is full."""
    error = failure(code, stderr, where)
    if code < 0 or isinstance(error, DiskFull):
        return error
    return MirrorBroken(f"{shown(where)}: {words_of(stderr)}")


@contextmanager
def on_disk(path: object) -> Iterator[None]:
    """Turn what the operating system says about our own files, such as `path`, into GitFailed or DiskFull."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else GitFailed
        raise kind(
            f"{error.filename or path}: {error.strerror}",
            hint="check the state directory and who may write there",
        ) from None


def timed_out(where: str, seconds: float) -> GitUnavailable:
    return GitUnavailable(
        f"{shown(where)}: timed out after {seconds:g} s", hint="check the network and the server"
    )


def words_of(stderr: str) -> str:
    """The one line of git's error output that says most, without credentials, at most 300 characters.

    The last `fatal:` line, else the last `error:` line, else the last line at all. ssh and servers print
    their own reason before git's general one, so a line just before an empty phrase of git's is preferred.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    lines = [
        line for line in lines if not line.startswith(("hint:", "warning:", "Please make sure", "and the"))
    ]
    telling = [
        line for line in lines if not re.match(r"fatal: (Could not read from remote|the remote end)", line)
    ]
    for start in ("fatal:", "error:", "! ", ""):
        found = [line for line in telling or lines if line.startswith(start)]
        if found:
            line = DECEIVING.sub(" ", redact(found[-1]).removeprefix("fatal: ").removeprefix("error: "))
            return line if len(line) <= _MAX_WORDS else f"{line[:_MAX_WORDS]}…"
    return ""


def remote_words(stderr: str) -> str:
    """What the server said about a refusal: its `remote:` lines in one, else git's own line."""
    said = [
        line.removeprefix("remote:").strip(" \t=-*")
        for line in re.split(r"[\r\n]+", stderr)
        if line.startswith("remote:")
    ]
    text = DECEIVING.sub(" ", redact(" ".join(filter(None, said))))
    return text[:_MAX_WORDS] or words_of(stderr)
