"""Calls to Infisical through its SDK; imported in worker threads only, because the SDK brings boto3.

Each function makes one call with a client of its own and closes it: the SDK has no timeouts, retries with
sleeps, prints tokens in its reprs and is not safe for threads, and a connection kept for five minutes is
mostly a dead one. All functions return a `Failure` instead of raising, so that no exception that holds a
body, a token or a credential leaves the thread.
"""

import io
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
import urllib3
from infisical_sdk import InfisicalSDKClient
from infisical_sdk.api_types import MachineIdentityLoginResponse
from requests.adapters import HTTPAdapter

from reconciler.secrets.infisical_answers import (
    Entry,
    Failure,
    OidcLogin,
    Token,
    Trouble,
    UniversalLogin,
    collect,
    login_failure,
    status_failure,
)
from reconciler.secrets.source import HttpTimeouts
from reconciler.secrets.values import Secret
from reconciler.spec.model import InfisicalSettings

T = TypeVar("T")

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer, unpacked."""

_PIECE = 64 * 1024


def login(host: str, credentials: UniversalLogin | OidcLogin, timeouts: HttpTimeouts) -> Token | Failure:
    def call(client: Any) -> Token:
        match credentials:
            case UniversalLogin(client_id, client_secret):
                answer = client.auth.universal_auth.login(client_id.reveal(), client_secret.reveal())
            case OidcLogin(identity_id, jwt):
                answer = client.auth.oidc_auth.login(identity_id.reveal(), jwt.reveal())
        return _token(answer)

    outcome = _with_client(host, timeouts, call)
    return login_failure(outcome) if isinstance(outcome, Failure) else outcome


def renew(host: str, token: Token, timeouts: HttpTimeouts) -> Token | Failure:
    """A token with a new lifetime. The SDK has no call for it; its transport has."""

    def call(client: Any) -> Token:
        answer = client.api.post(
            path="/api/v1/auth/token/renew",
            json={"accessToken": token.value.reveal()},
            model=MachineIdentityLoginResponse,
        )
        return _token(answer.data)

    return _with_client(host, timeouts, call)


def list_secrets(
    settings: InfisicalSettings, host: str, token: Token, timeouts: HttpTimeouts
) -> dict[str, Secret] | Failure:
    def call(client: Any) -> dict[str, Secret] | Failure:
        client.set_token(token.value.reveal())
        answer = client.secrets.list_secrets(
            environment_slug=settings.environment_slug,
            secret_path=settings.secret_path,
            project_id=settings.project_id,
            expand_secret_references=True,
            view_secret_value=True,
            recursive=settings.recursive,
            include_imports=True,
            tag_filters=list(settings.tags),
        )
        own = [_entry(vars(secret)) for secret in answer.secrets]
        imports = [[_entry(raw, one.secretPath) for raw in one.secrets] for one in answer.imports]
        return collect(own, imports, settings)

    return _with_client(host, timeouts, call)


def _token(answer: Any) -> Token:
    value, expires_in = answer.accessToken, answer.expiresIn
    if not isinstance(value, str) or not value or not isinstance(expires_in, int | float):
        raise TypeError("not a login's answer")
    return Token(Secret(value), float(expires_in) if expires_in > 0 else float("inf"))


def _entry(raw: Mapping[str, Any], folder: str = "/") -> Entry:
    key, value = raw["secretKey"], raw["secretValue"]
    if not isinstance(key, str) or not isinstance(value, str):
        raise TypeError("not a secret")
    return Entry(
        key,
        value,
        kind=raw.get("type", "shared"),
        hidden=bool(raw.get("secretValueHidden")),
        path=str(raw.get("secretPath") or folder),
    )


def _with_client(host: str, timeouts: HttpTimeouts, call: Callable[[Any], T]) -> T | Failure:
    """One call, whatever the SDK and the server do. Deliberately without the exception's text."""
    try:
        with _client(host, timeouts) as client:
            return call(client)
    except _Stopped as stopped:
        return stopped.failure
    except Exception:
        # The SDK raises bare TypeError, AttributeError and more for an answer that it did not expect.
        return Failure(
            Trouble.DOWN,
            "it answered 200, but not with what Infisical's API answers",
            "check that host is Infisical's own address, and what stands in front of it",
        )


@contextmanager
def _client(host: str, timeouts: HttpTimeouts) -> Iterator[Any]:
    # The SDK's cache is a thread with pickled plain text in it, so it stays off.
    client = InfisicalSDKClient(host=host, cache_ttl=None)
    session: requests.Session = client.api.session
    try:
        session.trust_env = False  # a .netrc would replace the token
        # For every address: requests writes some hosts in another way (IDNA, `..`) than the spec does.
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Adapter(timeouts, tls=scheme == "https://"))
        yield client
    finally:
        session.close()


class _Stopped(Exception):
    """Ends a call inside the SDK. Being no network error to it, it is not retried there."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.problem)
        self.failure = failure


class _Adapter(HTTPAdapter):
    """Deadlines, a size limit and the meaning of errors, below the SDK, which has none of them."""

    def __init__(self, timeouts: HttpTimeouts, *, tls: bool) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._deadline = time.monotonic() + timeouts.total
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # The system's certificates besides requests' own: a self-hosted server has its CA there.
        if self._tls:
            kwargs["ssl_context"] = ssl.create_default_context()
        super().init_poolmanager(*args, **kwargs)

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        outcome = self._exchange(request)
        if isinstance(outcome, Failure):
            raise _Stopped(outcome)
        return outcome

    def _exchange(self, request: requests.PreparedRequest) -> requests.Response | Failure:
        waits = (self._timeouts.connect, self._timeouts.read)
        try:
            response = super().send(request, stream=True, timeout=waits)
            try:
                body = self._read(response)
            finally:
                response.close()
        except (requests.exceptions.SSLError, ssl.SSLError):
            return Failure(
                Trouble.DOWN,
                "its TLS certificate is not trusted, or TLS failed",
                "add its CA to the system's certificates, and check the host's name",
            )
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
            return Failure(Trouble.DOWN, "no answer in time")
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            return Failure(Trouble.DOWN, "it cannot be reached, or the connection broke")
        if isinstance(body, Failure):
            return body
        if response.status_code != 200:
            return status_failure(response.status_code, body, response.headers, datetime.now(UTC))
        response.raw = io.BytesIO(body)
        return response

    def _read(self, response: requests.Response) -> bytes | Failure:
        body = bytearray()
        while piece := response.raw.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > MAX_ANSWER:
                return Failure(Trouble.DOWN, f"its answer is larger than {MAX_ANSWER} bytes")
            if time.monotonic() > self._deadline:
                return Failure(Trouble.DOWN, "no complete answer in time")
        return bytes(body)
