"""Stands before an app: a request that names a host which is not ours is answered with 421.

Otherwise a page anywhere could have its own name lead to this machine, and read in a browser what is open
here.
"""

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers

from reconciler.web.addresses import is_ours
from reconciler.web.answers import refused
from reconciler.web.guard import App


class HostCheck:
    """`anywhere`: paths that answer whatever host is named: they are signed, or say nothing."""

    def __init__(self, app: App, configured: Collection[str], anywhere: Collection[str]) -> None:
        self._app = app
        self._configured = configured
        self._anywhere = tuple(anywhere)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not self._is_let_in(scope):
            refusal = refused(
                421,
                "this host is not served here; TRUEUP_HTTP_HOSTS of the primary names more",
                "HostRefused",
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_let_in(self, scope: Any) -> bool:
        if any(scope["path"] == path or scope["path"].startswith(f"{path}/") for path in self._anywhere):
            return True
        named = Headers(scope=scope).getlist("host")
        server = scope.get("server")
        return len(named) == 1 and is_ours(named[0], self._configured, server[0] if server else "")
