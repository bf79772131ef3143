"""The token on its way into requests: in the clear only in the header that httpx sends."""

from collections.abc import Generator

import httpx

from reconciler.secrets.values import Secret


class Bearer(httpx.Auth):
    def __init__(self, token: Secret) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        yield request
