"""Dokploy's key on its way into requests: in the clear only in the header that httpx sends."""

from collections.abc import Generator

import httpx

from reconciler.secrets.values import Secret


class ApiKey(httpx.Auth):
    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["x-api-key"] = self._key.reveal()
        yield request
