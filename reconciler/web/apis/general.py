"""What concerns the primary as a whole: its health, and asking for a pass."""

from starlette.requests import Request
from starlette.responses import Response

from reconciler.lease_keeper import Role as LeaseRole
from reconciler.runner import Runner
from reconciler.web.answers import encoded, refused
from reconciler.web.endpoints import AnyEndpoint, Call, Done, Endpoint, Model, Nothing, OpenEndpoint, Role


class Health(Model, frozen=True):
    """`live`: it answers. `ready`: it leads, and the last pass could be made. `role`: `leader`, `standby`, or
    `unsure` for a leader that could not renew its lease."""

    status: str
    live: bool
    ready: bool
    role: str


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def health(_request: Request) -> Response:
        # Nothing of what a pass found: anybody may ask.
        return encoded(Health(status="ok", live=True, ready=is_ready(), role=role()))

    async def ready(request: Request) -> Response:
        if is_ready():
            return await health(request)
        return refused(503, "no pass could be made yet, or the last one could not", "NotReady")

    def is_ready() -> bool:
        return role() is LeaseRole.LEADER and runner.last is not None and runner.last.error is None

    def role() -> LeaseRole:
        leadership = runner.primary.leadership
        return leadership.lease.role if leadership is not None else LeaseRole.STANDBY

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
        OpenEndpoint(
            method="GET",
            path="/health/live",
            summary="Whether it is alive: it answers",
            tag="general",
            handler=health,
            answer=Health,
        ),
        OpenEndpoint(
            method="GET",
            path="/health/ready",
            summary="Whether the last pass could be made, as the status of the answer",
            tag="general",
            handler=ready,
            answer=Health,
            refusals={503: "Not ready."},
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
