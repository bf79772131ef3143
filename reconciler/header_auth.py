"""A secret on its way into requests: in the clear only in the header that httpx sends."""

from collections.abc import Generator

import httpx

from reconciler.secrets.values import Secret


class HeaderAuth(httpx.Auth):
    """Puts a secret into a header, behind a word such as `Bearer `."""

    def __init__(self, header: str, before: str, secret: Secret) -> None:
        self._header = header
        self._before = before
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._header] = f"{self._before}{self._secret.reveal()}"
        yield request
