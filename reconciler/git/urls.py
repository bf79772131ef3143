"""Which URLs, refs and paths may reach git's command line, and how a URL is shown in a message.

Git takes more than addresses where it takes a URL: `ext::` runs a command, a leading `-` is an option,
a bare path reads this machine's disk. What a spec says is therefore checked here, before any process
starts. Form of refs: `git help check-ref-format`; form of URLs: `git help fetch`, "GIT URLS".
"""

import re
from collections.abc import Callable
from typing import Final

from reconciler.errors import GitRefused

MAX_URL: Final = 4096
MAX_REF: Final = 1024

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PORT = r"(?::[0-9]{1,5})?"
_HTTPS = re.compile(rf"https://{_HOST}{_PORT}/[^?#\\]+")
_SSH = re.compile(rf"ssh://(?:{_USER}@)?{_HOST}{_PORT}/[^\\]+")
_SCP = re.compile(rf"(?:{_USER}@)?{_HOST}:(?!-)[^\\:]+")
_FILE = re.compile(r"file:///[^?#]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEMES: Final = ("file", "git", "http", "https", "ssh")
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_USERINFO = re.compile(r"(?<=://)(?:[^/?#\s]*|[^/?#\s:]*:[^?#\s'\"]*)@")
_QUERY = re.compile(r"(://[^?\s'\"]*)\?[^\s'\"]*")
_SCP_PASSWORD = re.compile(r"[^/@:\s]+:[^/@\s]+@")

# Characters that make a name read as another one: line ends, other controls, direction marks.
DECEIVING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_REF_FORBIDDEN = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//")


def redact(text: str) -> str:
    """`text` with the user part and the query of every URL in it taken out: `https://***@host/path?***`."""
    return _QUERY.sub(r"\1?***", _USERINFO.sub("***@", text))


def shown(url: str) -> str:
    """A URL from anybody, fit for one line of a message: no credentials, no control characters, short."""
    plain = _SCP_PASSWORD.sub("***@", redact(url))
    plain = DECEIVING.sub("\N{REPLACEMENT CHARACTER}", plain).encode("utf-8", "replace").decode()
    return plain if len(plain) <= 200 else f"{plain[:200]}…"


def check_url(url: str, *, allow_local: bool) -> str:
    """`url` unchanged when it is safe to hand to git, else GitRefused.

    Allowed: `https://host[:port]/path` without user or password, `ssh://[user@]host[:port]/path`,
    `[user@]host:path`, and with `allow_local` also `file:///path` and absolute paths.
    """

    def refused(why: str, hint: str) -> GitRefused:
        return GitRefused(f"repository URL {shown(url)!r} {why}", hint=hint)

    forms = "use https://host/path, ssh://user@host/path or user@host:path"
    if not url or len(url) > MAX_URL:
        raise refused("is empty" if not url else f"is longer than {MAX_URL} characters", forms)
    if DECEIVING.search(url) or any("\ud800" <= char <= "\udfff" for char in url):
        raise refused("holds control or direction characters", forms)
    if url.startswith("-"):
        raise refused("starts with '-' and would be read as an option", forms)
    if _HELPER.match(url):
        raise refused("names a transport helper, which can run any command", forms)
    if url.startswith("/"):
        return _local(url, allow_local, refused)
    if scheme := _SCHEME.match(url):
        return _with_scheme(url, scheme[1], allow_local, refused)
    if _SCP_PASSWORD.match(url):
        raise refused("holds a password", "use an ssh key and take the password out of the URL")
    if not _SCP.fullmatch(url) or " " in url or not url.isascii():
        if ":" not in url.split("/", 1)[0]:
            raise refused("is a relative path", "write the absolute path, or a URL")
        raise refused("has a form that is not known", forms)
    if url.split(":", 1)[0] in _SCHEMES:
        raise refused("names a scheme without '//'", forms)
    return url


def check_ref(ref: str) -> str:
    """A branch, tag or full ref name, unchanged when git accepts it and it is no option; else GitRefused."""

    def refused(why: str) -> GitRefused:
        return GitRefused(
            f"ref name {shown(ref)!r} {why}", hint="use a plain branch or tag name such as main or v1.2.3"
        )

    if not ref or len(ref) > MAX_REF:
        raise refused("is empty" if not ref else f"is longer than {MAX_REF} characters")
    if ref.startswith("-"):
        raise refused("starts with '-' and would be read as an option")
    if DECEIVING.search(ref) or any("\ud800" <= char <= "\udfff" for char in ref):
        raise refused("holds control or direction characters")
    if _REF_FORBIDDEN.search(ref) or ref == "@" or ref.startswith("/") or ref.endswith(("/", ".")):
        raise refused("is not a valid name in git")
    if any(part.startswith(".") or part.endswith(".lock") for part in ref.split("/")):
        raise refused("has a component that starts with '.' or ends with '.lock'")
    return ref


def _local(url: str, allow_local: bool, refused: Callable[[str, str], GitRefused]) -> str:
    if not allow_local:
        raise refused(
            "is a local path, which is off by default",
            "set TRUEUP_ALLOW_LOCAL_REPOS=1 to allow repositories on this machine",
        )
    return url


def _with_scheme(url: str, scheme: str, allow_local: bool, refused: Callable[[str, str], GitRefused]) -> str:
    if scheme == "file":
        if not _FILE.fullmatch(url):
            raise refused("is not of the form file:///path", "write file:// and the absolute path")
        return _local(url, allow_local, refused)
    userinfo = _USERINFO.search(url)
    if userinfo and (scheme != "ssh" or ":" in userinfo[0]):
        raise refused(
            "holds a user name or password",
            "take it out of the URL; credentials for https come from TRUEUP_GIT_ASKPASS, for ssh from a key",
        )
    form = {"https": _HTTPS, "ssh": _SSH}.get(scheme)
    if form is None:
        raise refused(f"uses the scheme {scheme!r}, which is not allowed", "use https:// or ssh://")
    if not form.fullmatch(url) or " " in url or not url.isascii():
        raise refused("is not well formed", f"use {scheme}://host/path, percent-encoded, without a query")
    return url
