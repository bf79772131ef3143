"""Speaking to a REST service with a secret in a header: bounded answers, deadlines, waiting when asked to.

No error of httpx leaves `exchange`: it would go through frames that have the request, and with it the secret.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from reconciler.bounded import is_tls, read_at_most
from reconciler.secrets.values import Secret

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

CONNECT_DEADLINE: Final = 10.0
DEADLINE: Final = 30.0
"""Seconds for one request with its answer."""

MAX_TRIES: Final = 3
"""Requests for one thing, where the service asks to wait in between."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class AsksToWait(Exception):
    """Mixed into the error of a service that is down; `retry_after`: seconds, where it said so."""

    retry_after: float | None = None


class RestClient:
    """One connection pool, from `open` to `close`. `patience`: seconds that may be waited in all."""

    def __init__(
        self,
        secret: Secret,
        *,
        header: str,
        before: str = "",
        headers: Mapping[str, str],
        max_answer: int,
        patience: float,
    ) -> None:
        self._secret = secret
        self._header = header
        self._before = before
        self._headers = headers
        self._max_answer = max_answer
        self._patience = patience
        self._client: httpx.AsyncClient | None = None

    @property
    def can_be_sent(self) -> bool:
        """Whether a header can carry the secret."""
        return self._secret.reveal().isascii() and self._secret.reveal().isprintable()

    async def open(self) -> None:
        import httpx

        from reconciler.header_auth import HeaderAuth  # which needs httpx

        self._client = httpx.AsyncClient(
            verify=await trio.to_thread.run_sync(ssl.create_default_context),
            auth=HeaderAuth(self._header, self._before, self._secret),
            trust_env=False,  # a .netrc or a proxy of this machine gets no secret
            follow_redirects=False,
            timeout=httpx.Timeout(DEADLINE, connect=CONNECT_DEADLINE),
            headers={"User-Agent": "trueup", **self._headers},
        )

    async def close(self) -> None:
        if self._client is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(CONNECT_DEADLINE):
                await self._client.aclose()

    async def patiently(self, once: Callable[[], Awaitable[T]]) -> T:
        """What `once` gives, tried again where the service asks to come back within our patience."""
        for attempt in range(1, MAX_TRIES + 1):
            try:
                return await once()
            except AsksToWait as error:
                wait = error.retry_after
                if wait is None or wait > self._patience or attempt == MAX_TRIES:
                    raise
            self._patience -= wait
            await trio.sleep(wait)
        raise AssertionError("every try returned or raised")

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer | str:
        """The answer, or in words why there is none. Secrets in `body` are in the clear only on their way."""
        import httpx

        assert self._client is not None, "use it in an `async with` block"
        try:
            with trio.fail_after(DEADLINE):
                async with self._client.stream(method, url, params=params, json=_revealed(body)) as response:
                    content = await read_at_most(response, self._max_answer)
                    if content is not None:
                        return Answer(response.status_code, response.headers, content)
                    return "its answer is too large"
        except (httpx.TimeoutException, trio.TooSlowError):
            return "no answer in time"
        except httpx.ConnectError as error:
            return "its certificate is not trusted" if is_tls(error) else "it cannot be reached"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return "the connection broke"


def _revealed(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in body.items()}
