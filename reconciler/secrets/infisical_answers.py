"""What is said to Infisical, and what its answers mean, purely: outage, refusal or values that may be used.

Nothing of an answer's text gets into a failure: servers put names and values into their messages. Only the
status, the kind of error (`PermissionDenied`) and a waiting time are taken out of it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from reconciler.retry_after import retry_after
from reconciler.secrets.values import Secret
from reconciler.spec.model import InfisicalSettings

HIDDEN = "<hidden-by-infisical>"
"""What stands in place of a value that the identity may not read, with status 200."""

REFERENCE = re.compile(r"\$\{@?[A-Za-z0-9_.-]+(::[A-Za-z0-9_.-]+)?\}")
"""A reference as the server writes them, other projects' included; one with no target stays in the value."""

MAX_WAIT = 3600.0
"""Seconds: a longer waiting time is not believed."""

MAX_NAMED = 5
"""Keys that an error names; the rest is counted."""

_ERROR_KIND = re.compile(r"[A-Za-z]{1,40}")
_WAIT = re.compile(
    r"\bin\s+(?:about\s+)?(\d{1,6}|a|an)\s*(s|m|h|sec|min|second|minute|hour)s?\b", re.IGNORECASE
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Trouble(Enum):
    DOWN = "down"
    """It could not be asked, or the answer proves nothing."""
    REFUSED = "refused"
    """It answered: no. A person must act."""
    TOKEN = "token"  # noqa: S105 - a kind of failure
    """The access token is expired or revoked: one new login may help."""


@dataclass(frozen=True, slots=True)
class Failure:
    trouble: Trouble
    problem: str
    hint: str | None = None
    retry_after: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the seconds that it is valid for; infinite where the server sets no limit."""

    value: Secret
    lifetime: float


@dataclass(frozen=True, slots=True)
class UniversalLogin:
    client_id: Secret
    client_secret: Secret


@dataclass(frozen=True, slots=True)
class OidcLogin:
    identity_id: Secret
    jwt: Secret


@dataclass(frozen=True, slots=True)
class Entry:
    """One secret of an answer, own or imported, in the common shape."""

    key: str
    value: str = field(repr=False)
    kind: str
    hidden: bool
    path: str


def status_failure(status: int, body: bytes, headers: Mapping[str, str], now: datetime) -> Failure:
    """What an answer other than 200 means."""
    kind, message = _error_of(body)
    shown = f"status {status}" + (f" {kind}" if kind else "")
    wait = _waiting_time(retry_after(headers, now), message)
    match status:
        case 401:
            return Failure(Trouble.TOKEN, f"it does not accept the access token ({shown})")
        case 403 if kind == "TokenError":
            return Failure(Trouble.TOKEN, f"the access token has expired ({shown})")
        case 403:
            return Failure(
                Trouble.REFUSED,
                f"the identity has no right to read this ({shown})",
                "give the identity read access to the project, the environment and the path, and to "
                "everything that its secrets refer to",
            )
        case 404:
            return Failure(
                Trouble.REFUSED,
                f"it knows no such project, environment or path ({shown})",
                "check host, project_id, environment_slug and secret_path",
            )
        case 408 | 425:
            return Failure(Trouble.DOWN, f"it gave up on the request ({shown})", retry_after=wait)
        case 429:
            after = f"; it asks to wait {wait:g} s" if wait else ""
            return Failure(Trouble.DOWN, f"too many requests ({shown}){after}", retry_after=wait)
        case 304:
            return Failure(Trouble.DOWN, f"it answers as if we had asked before ({shown})")
        case _ if 300 <= status < 400:
            return Failure(
                Trouble.REFUSED,
                f"it redirects to another address ({shown}), which is not followed",
                "set host to the final address",
            )
        case _ if status >= 500:
            return Failure(Trouble.DOWN, f"it has a fault ({shown})", retry_after=wait)
    return Failure(
        Trouble.REFUSED,
        f"it does not accept the request ({shown})",
        "check project_id, environment_slug and secret_path",
    )


def login_failure(failure: Failure) -> Failure:
    """The same for a login: there a 401 is no matter of the token."""
    if failure.trouble is Trouble.DOWN:
        return failure
    status = re.search(r"\(status [^)]*\)", failure.problem)
    return Failure(
        Trouble.REFUSED,
        "it refused the login" + (f" {status.group()}" if status else ""),
        "check the credentials, and that the identity may log in from here; three bad logins, by whatever "
        "process, lock it out for 5 minutes, and then right ones are refused too",
    )


def _error_of(body: bytes) -> tuple[str, str]:
    """The kind of an error, empty where it names none, and its text, which must not be shown."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    kind, message = document.get("error"), document.get("message")
    shown = kind if isinstance(kind, str) and _ERROR_KIND.fullmatch(kind) else ""
    return shown, message if isinstance(message, str) else ""


def _waiting_time(header: float | None, message: str) -> float | None:
    """Seconds from a Retry-After header or from a text like `try again in 30 seconds`."""
    if header is not None:
        seconds = header
    elif found := _WAIT.search(message):
        count = float(found[1]) if found[1].isdecimal() else 1.0
        seconds = count * _UNITS[found[2][0].lower()]
    else:
        return None
    return min(max(seconds, 1.0), MAX_WAIT)


def collect(
    own: Iterable[Entry], imports: Iterable[Iterable[Entry]], settings: InfisicalSettings
) -> dict[str, Secret] | Failure:
    """The values of a list: own secrets win over imported ones, later imports over earlier ones.

    Personal secrets are left out. Only values that win are judged: a hidden or unresolved one is a failure
    of the whole list, because nobody could tell what is missing from it.
    """
    winners: dict[str, Entry] = {}
    for imported in imports:
        winners.update({entry.key: entry for entry in imported if entry.kind == "shared"})
    placed: dict[str, Entry] = {}
    for entry in own:
        if entry.kind != "shared":
            continue
        other = placed.setdefault(entry.key, entry)
        if other.value != entry.value:
            return Failure(
                Trouble.REFUSED,
                f"the key {entry.key} stands in {other.path} and in {entry.path} with different values",
                "use one source for each folder instead of `recursive`",
            )
    winners.update(placed)
    if not winners:
        return Failure(
            Trouble.DOWN,
            f"it gave no secrets for environment {settings.environment_slug}, path {settings.secret_path}: "
            "an empty folder, or a wrong slug or path, which some servers answer in the same way",
            "check environment_slug, secret_path and tags, or store one secret there",
        )
    hidden = [key for key, entry in winners.items() if entry.hidden or entry.value == HIDDEN]
    if hidden:
        return Failure(
            Trouble.REFUSED,
            f"it hides the value of {_named(hidden)}",
            "give the identity the right to read values, not only to list them",
        )
    unresolved = [key for key, entry in winners.items() if REFERENCE.search(entry.value)]
    if unresolved:
        return Failure(
            Trouble.REFUSED,
            f"a reference ${{...}} is left unresolved in {_named(unresolved)}",
            "create what it refers to, or mend the reference",
        )
    return {key: Secret(entry.value) for key, entry in sorted(winners.items())}


def _named(keys: list[str]) -> str:
    shown = sorted(keys)[:MAX_NAMED]
    more = len(keys) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
