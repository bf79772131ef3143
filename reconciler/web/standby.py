"""What a primary answers that does not lead: that it lives, and that another one is to be asked."""

from typing import Any, Final

from starlette.responses import Response

from reconciler.lease_keeper import Keeper, Role
from reconciler.web.answers import refused
from reconciler.web.guard import App

ALWAYS: Final = frozenset({"/health", "/metrics", "/openapi.json"})
"""Paths that are about this process alone."""

RETRY_AFTER: Final = "15"


class StandbyGate:
    """Runs an app while the primary leads. Nothing else is taken in meanwhile, a webhook neither: whoever
    takes over looks at everything at its start, so that nothing is lost by refusing it."""

    def __init__(self, app: App, lease: Keeper) -> None:
        self._app = app
        self._lease = lease

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._lease.role is not Role.STANDBY or scope.get("path") in ALWAYS:
            await self._app(scope, receive, send)
        else:
            await self._refusal()(scope, receive, send)

    def _refusal(self) -> Response:
        answer = refused(503, f"this primary is standby: {self._lease.leader} leads", "Standby")
        answer.headers["Retry-After"] = RETRY_AFTER
        return answer
