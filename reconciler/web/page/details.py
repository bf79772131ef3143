"""Pages of their own for what is too much for the one page: why a service is so, and what would change, as
steps and as files.

Both say what the API says, asked by the same functions.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from reconciler.control.state import fold
from reconciler.file_forecasts import ProjectFiles
from reconciler.runner import Runner
from reconciler.web.apis.project_files import DEADLINE
from reconciler.web.endpoints import Call
from reconciler.web.page.deeds import FILES, Doing, Place, allow_time
from reconciler.web.page.files import page_of
from reconciler.web.page.gate import Gate, html
from reconciler.web.page.model import revision_of, short
from reconciler.web.page.render import render
from reconciler.web.page.sessions import Session
from reconciler.web.refusals import RequestRefused

SERVICE: Place = ("GET", "/api/services/{environment}/{name}")
ENVIRONMENT: Place = ("GET", "/api/environments/{name}")
PLAN: Place = ("GET", "/api/plan")


class Details:
    def __init__(self, runner: Runner, gate: Gate, doing: Doing) -> None:
        self._runner = runner
        self._gate = gate
        self._doing = doing

    async def service(self, request: Request) -> Response:
        """The service that `id` names: its conditions, what is planned, whose release it is, its steps."""
        session = self._gate.require(request)
        id = request.query_params.get("id", "")
        kind, _, rest = id.partition("/")
        environment, _, name = rest.partition("/")
        if kind != "services" or not name:
            raise RequestRefused(404, f"there is no service {id!r}")
        path = {"environment": environment, "name": name}
        service = dict(await self._ask(SERVICE, session, request, path))
        # What was decided a moment ago no pass has seen yet, and the buttons have to fit it.
        control = fold(await self._runner.primary.operators.read())
        service["suspended"] = service["suspended"] or control.suspends(id)
        around = await self._ask(ENVIRONMENT, session, request, {"name": environment})
        release = next((each for each in around["units"] if each["unit"] == service["unit"]), None)
        needs = [await self._need(session, request, each) for each in service["dependsOn"]]
        return html(
            render(
                "service.html",
                it=service,
                release=release["release"] if release is not None else None,
                waiting=[each for each in around["waiting"] if each["unit"] == service["unit"]],
                needs=needs,
                short=short,
                deeds=self._doing.open_to(session.caller),
                csrf=session.csrf,
            )
        )

    async def plan(self, request: Request) -> Response:
        """What a pass would do now, looked at anew; nothing is changed."""
        session = self._gate.require(request)
        allow_time(request)
        plan = await self._ask(PLAN, session, request, {}, {"fresh": True})
        return html(render("plan.html", plan=plan, spec=revision_of(plan["specRevision"])))

    async def files(self, request: Request) -> Response:
        """What a sync of the project that `name` names would do to files, asked of the agents now."""
        session = self._gate.require(request)
        allow_time(request, DEADLINE)
        name = request.query_params.get("name", "")
        environment = request.query_params.get("environment", "")
        told = await self._ask(FILES, session, request, {"name": name}, {"environment": environment})
        files = msgspec.convert(told, ProjectFiles)
        return html(page_of(files))

    async def _need(self, session: Session, request: Request, id: str) -> Mapping[str, Any]:
        """What a service waits for: how that is, where it is a service."""
        kind, _, rest = id.partition("/")
        environment, _, name = rest.partition("/")
        if kind != "services":
            return {"id": id, "ready": None}
        path = {"environment": environment, "name": name}
        try:
            return {"id": id, "ready": (await self._ask(SERVICE, session, request, path))["ready"]}
        except RequestRefused:  # it has left the spec
            return {"id": id, "ready": None}

    async def _ask(
        self,
        place: Place,
        session: Session,
        request: Request,
        path: Mapping[str, str],
        query: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        call: Call[Any, Any] = Call(session.caller, query or {}, {}, path, request)
        return (await self._doing.call(place, call)).told
