"""Asks a running primary: over the socket in its state directory, or at `TRUEUP_SERVER` with a token."""

import json
import os
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import trio

from reconciler.actor import ACTOR, whoami
from reconciler.bounded import read_at_most
from reconciler.errors import SettingsError, TrueupError
from reconciler.logs import printable
from reconciler.settings import Settings
from reconciler.spec.addresses import secret_host_fault
from reconciler.status.conditions import bounded
from reconciler.tracing import current_trace, new_trace

if TYPE_CHECKING:
    import httpx

SOCKET_NAME: Final = "trueup.sock"
MAX_SOCKET_PATH: Final = 107
"""Bytes that the address of a Unix socket holds, without the NUL at its end: unix(7)."""

CONNECT_DEADLINE: Final = 10.0
DEADLINE: Final = 180.0
"""Seconds for a whole request: a primary may have to ask a source and all its fallbacks."""

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of an answer."""


class NoPrimary(TrueupError):
    """Nothing serves where a running primary is needed."""

    reason = "NoPrimary"


class PrimaryUnreachable(TrueupError):
    """A primary is there and gave no answer that could be used."""

    reason = "PrimaryUnreachable"
    retryable = True


class PrimaryRefused(TrueupError):
    """A running primary answered and did not do what it was asked; `status` is HTTP's."""

    reason = "PrimaryRefused"

    def __init__(
        self, message: str, *, status: int, hint: str | None = None, document: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.document = dict(document or {})
        """All of the answer."""


def socket_path(settings: Settings) -> str:
    """Where a primary on this state directory listens. Raises SettingsError where no socket can be."""
    path = str(settings.state_dir / SOCKET_NAME)
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise SettingsError(
            f"{path} is too long for a socket: {length} bytes, and {MAX_SOCKET_PATH} are possible",
            hint="give a shorter --state-dir or TRUEUP_STATE_DIR",
        )
    return path


@dataclass(frozen=True, slots=True)
class Connection:
    """The way to the running primary: a client for it, and what is raised where nothing is at its end."""

    client: "httpx.AsyncClient"
    address: str
    absent: TrueupError

    def failure(self, error: Exception, deadline: float) -> TrueupError:
        """What a person reads of an error of the client."""
        import httpx

        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            if _is_denied(error):
                return SettingsError(
                    f"{self.address} is not yours to use",
                    hint="run this as the user that `trueup serve` runs as",
                )
            return self.absent
        if isinstance(error, httpx.TimeoutException | trio.TooSlowError):
            return PrimaryUnreachable(f"the primary at {self.address} did not answer within {deadline:g} s")
        return PrimaryUnreachable(
            f"the connection to the primary at {self.address} broke ({type(error).__name__})",
            hint="look at the log of `trueup serve`",
        )


def connect(settings: Settings, method: str) -> Connection:
    """Nothing is sent yet. Raises SettingsError for an address that no token may be sent to."""
    import httpx

    if settings.server is None:
        address = socket_path(settings)
        transport = httpx.AsyncHTTPTransport(uds=address)
        base, headers = "http://primary", {ACTOR: quote(whoami(), safe=" <>@")} if method != "GET" else {}
        absent = NoPrimary(
            f"no running primary at {address}",
            hint="start `trueup serve`, or name one elsewhere with TRUEUP_SERVER and TRUEUP_TOKEN",
        )
    else:
        address = base = settings.server
        transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context())
        headers = _authorization(settings)
        absent = NoPrimary(
            f"no running primary at {address}", hint="check TRUEUP_SERVER, and that `trueup serve` runs there"
        )
    # Nothing of this machine's own proxies and .netrc: the token is for the primary alone.
    headers["traceparent"] = f"00-{current_trace() or new_trace()}-{secrets.token_hex(8)}-01"
    client = httpx.AsyncClient(transport=transport, base_url=base, headers=headers, trust_env=False)
    return Connection(client, address, absent)


async def request(
    settings: Settings,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    deadline: float = DEADLINE,
) -> Any:
    """One request to the running primary, such as `POST /api/secrets/cache/clear`; gives its document.

    What comes of it is recorded under the operator's own name, or, elsewhere, under that of the token.

    Raises NoPrimary where none runs, PrimaryRefused with the primary's own words for an error that it
    answers, PrimaryUnreachable, and SettingsError for an address that no token may be sent to.
    """
    import httpx

    # The token is in no frame that an error goes through; the errors below are chained to none.
    way = connect(settings, method)
    try:
        with trio.fail_after(deadline):
            async with way.client as client:
                timeout = httpx.Timeout(deadline, connect=CONNECT_DEADLINE)
                async with client.stream(method, path, params=params, json=body, timeout=timeout) as answer:
                    status, content = answer.status_code, await read_at_most(answer, MAX_ANSWER)
    except (httpx.HTTPError, trio.TooSlowError) as error:
        failure = way.failure(error, deadline)
    else:
        if content is not None:
            return judged(status, content, way.address)
        failure = PrimaryUnreachable(
            f"the primary at {way.address} answered with more than {MAX_ANSWER} bytes"
        )
    raise failure


async def request_if_running(
    settings: Settings,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    deadline: float = DEADLINE,
) -> Any:
    """As `request`; None where nothing runs on this state directory. One named elsewhere has to be there."""
    if settings.server is None and not settings.has_state(SOCKET_NAME):
        return None
    try:
        return await request(settings, method, path, params=params, body=body, deadline=deadline)
    except NoPrimary:
        if settings.server is not None:
            raise
        return None


async def ask_for_a_pass(settings: Settings) -> str:
    """Has a running primary look now; says who acts on what was changed, and when."""
    try:
        answer = await request_if_running(settings, "POST", "/api/reconcile")
    except TrueupError as error:
        return f"the running primary could not be asked for a pass and acts on it with its next one: {error}"
    if answer is not None:
        return "the running primary was asked for a pass"
    return "the next pass acts on it: `trueup reconcile`, or a running `trueup serve` by itself"


def _authorization(settings: Settings) -> dict[str, str]:
    assert settings.server is not None
    if settings.token is None:
        raise SettingsError(
            "TRUEUP_SERVER is set and TRUEUP_TOKEN is not",
            hint="set the token that the primary there knows, or leave TRUEUP_SERVER out to use its socket",
        )
    if (fault := secret_host_fault(settings.server)) is not None:
        raise SettingsError(f"TRUEUP_SERVER: {settings.server} {fault}")
    return {"Authorization": f"Bearer {settings.token.reveal()}"}


def _is_denied(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PermissionError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def judged(status: int, content: bytes, address: str) -> Any:
    """The document of a good answer; PrimaryRefused with what a bad one says."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if 200 <= status < 300 and document is not None:
        return document
    said = document.get("message") if isinstance(document, dict) else None
    if isinstance(said, str) and said:
        raise PrimaryRefused(bounded(printable(said)), status=status, document=document)
    if status == 401:
        raise PrimaryRefused(
            f"the primary at {address} does not accept TRUEUP_TOKEN",
            status=status,
            hint="set a token that it knows",
        )
    raise PrimaryRefused(f"the primary at {address} answered with status {status}", status=status)
