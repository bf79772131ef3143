"""What concerns the primary as a whole: its health, and asking for a pass."""

from starlette.requests import Request
from starlette.responses import Response

from reconciler.runner import Runner
from reconciler.web.answers import encoded
from reconciler.web.endpoints import AnyEndpoint, Call, Done, Endpoint, Model, Nothing, OpenEndpoint, Role


class Health(Model, frozen=True):
    """`ready`: the last pass could be made."""

    status: str
    ready: bool


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def health(_request: Request) -> Response:
        # Nothing of what a pass found: anybody may ask.
        last = runner.last
        return encoded(Health(status="ok", ready=last is not None and last.error is None))

    async def reconcile(_call: Call[Nothing, Nothing]) -> Done:
        runner.ask("request")
        return Done(success=True, message="A pass was asked for")

    return [
        OpenEndpoint(
            method="GET",
            path="/health",
            summary="Whether it is alive, and whether a pass could be made",
            tag="general",
            handler=health,
            answer=Health,
        ),
        Endpoint(
            method="POST",
            path="/api/reconcile",
            summary="Ask for a pass",
            tag="general",
            handler=reconcile,
            role=Role.OPERATE,
            status=202,
        ),
    ]
